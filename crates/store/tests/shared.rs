use model::{Limit, Quota};
use spec::{Connection, NamedQuota, Shared};

use crate::support::{Database, at, name, on_both};

on_both! {
    shared_things_are_kept_by_name;
}

fn quota(named: &str, calls: u32) -> NamedQuota {
    let limits = vec![Limit { calls, window_ms: 60_000 }];
    NamedQuota { name: name(named), quota: Quota { limits, ..Quota::default() } }
}

fn connection(concurrent_runs: u32) -> Connection {
    Connection { name: name("shop"), concurrent_runs }
}

async fn shared_things_are_kept_by_name(database: Database) {
    let store = database.open().await;
    assert_eq!(store.shared().await.unwrap(), Shared::default());
    let first = Shared {
        quotas: vec![quota("shop", 10), quota("mail", 20)],
        connections: vec![connection(1)],
        ..Shared::default()
    };
    store.apply_shared(&first, at(0)).await.unwrap();
    let second = Shared {
        quotas: vec![quota("shop", 30)],
        connections: vec![connection(2)],
        ..Shared::default()
    };
    store.apply_shared(&second, at(1)).await.unwrap();
    store.apply_shared(&Shared::default(), at(2)).await.unwrap();
    let shared = store.shared().await.unwrap();
    assert_eq!(shared.quotas, [quota("mail", 20), quota("shop", 30)]);
    assert_eq!(store.connection(&name("shop")).await.unwrap(), Some(connection(2)));
    assert_eq!(store.connection(&name("crm")).await.unwrap(), None);
    assert!(store.delete_quota(&name("shop")).await.unwrap());
    assert!(!store.delete_quota(&name("shop")).await.unwrap());
    assert_eq!(store.shared().await.unwrap().quotas, [quota("mail", 20)]);
}
