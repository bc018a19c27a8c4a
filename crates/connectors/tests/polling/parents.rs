//! A resource of each record of another one.

use connect::Limits;
use testkit::http::{Reply, Server};

use crate::support::*;

const SETTINGS: &str = r#"path: "/customers/{{ parent.id }}/orders"
paginate: {page: {param: page}}
key: [id]
parent:
  path: /customers
  records: list
  include: {n: name.first}"#;

/// Five customers on three pages, each with as many orders as its number, two to a page.
async fn shop() -> Server {
    Server::start(|request, _| {
        let query = query(request);
        let number = |name: &str| query.get(name).and_then(|text| text.parse::<u64>().ok());
        if path(request) == "/customers" {
            let page = number("p").unwrap_or(0);
            let customers: Vec<String> = (page * 2 + 1..=(page * 2 + 2).min(5))
                .map(|id| format!("{{\"id\":{id},\"name\":{{\"first\":\"c{id}\"}}}}"))
                .collect();
            let next =
                if page < 2 { format!("\"/customers?p={}\"", page + 1) } else { "null".into() };
            return json(format!("{{\"list\":[{}],\"next\":{next}}}", customers.join(",")));
        }
        let customer: u64 = path(request).split('/').nth(2).unwrap().parse().unwrap();
        if customer == 3 {
            return Reply::new(404, "");
        }
        let page = number("page").unwrap() - 1;
        let orders =
            (page * 2..(page * 2 + 2).min(customer).max(page * 2)).map(|n| customer * 10 + n);
        json(list(orders))
    })
    .await
}

#[tokio::test]
async fn children_carry_what_they_need_of_their_parent_and_a_crash_goes_on_there() {
    let server = shop().await;
    let settings = format!("{SETTINGS}\nerrors: [{{status: 404, then: skip}}]");
    let source = source(&server.url(), &settings);
    let begun = source.parts(&[], false).await.unwrap().with_news[0].cursor.clone();
    let (whole, error) = open(&*source, &begun, Limits::default()).await;
    assert!(error.is_none(), "{}", error.unwrap().chain());
    let expected: Vec<String> = [1_u64, 2, 4, 5]
        .iter()
        .flat_map(|customer| {
            (0..*customer).map(move |n| format!("{}:\"c{customer}\"", customer * 10 + n))
        })
        .collect();
    assert_eq!(whole.rows, expected);
    for (cursor, rows) in &whole.cursors {
        let (rest, error) = open(&*source, cursor, Limits::default()).await;
        assert!(error.is_none());
        assert_eq!(rest.ids, whole.ids[*rows..]);
        assert_eq!(rest.positions, whole.positions[*rows..]);
    }
}

#[tokio::test]
async fn a_parent_without_its_key_stops() {
    let server = Server::start(|_, _| json(r#"{"list":[{"name":"x"}]}"#)).await;
    let error = failure(&*source(&server.url(), SETTINGS)).await;
    assert!(error.what.contains("$.id"), "{}", error.what);
}

#[tokio::test]
async fn a_missing_child_stops_without_a_rule() {
    let server = shop().await;
    let error = failure(&*source(&server.url(), SETTINGS)).await;
    assert!(error.what.contains("404"), "{}", error.what);
}
