//! Webhooks that were not delivered, for people and for programs.

use serde_json::{Value, json};
use wire::control::{Receiver, ResendDeliveriesResponse};

use super::{
    access::moment,
    table::{draw, grouped},
};

pub(crate) fn json(receivers: &[Receiver]) -> Value {
    let receivers = receivers.iter().map(|receiver| {
        json!({
            "pipeline": receiver.pipeline,
            "target": receiver.target,
            "waiting": receiver.waiting,
            "given_up": receiver.given_up,
            "failing_since": moment(receiver.failing_since.as_ref()),
            "next_attempt_at": moment(receiver.next_attempt_at.as_ref()),
            "reason": receiver.reason,
            "disabled_at": moment(receiver.disabled_at.as_ref()),
        })
    });
    json!({ "receivers": receivers.collect::<Value>() })
}

pub(crate) fn text(receivers: &[Receiver]) -> String {
    if receivers.is_empty() {
        return "every webhook was delivered\n".to_owned();
    }
    let rows = receivers.iter().map(|receiver| {
        let next = match (&receiver.disabled_at, &receiver.next_attempt_at) {
            (Some(at), _) => {
                format!("disabled since {}", moment(Some(at)).unwrap_or_default())
            }
            (None, next) => moment(next.as_ref()).unwrap_or_default(),
        };
        vec![
            receiver.pipeline.clone(),
            receiver.target.clone(),
            grouped(receiver.waiting),
            grouped(receiver.given_up),
            moment(receiver.failing_since.as_ref()).unwrap_or_default(),
            next,
            receiver.reason.clone(),
        ]
    });
    let heading =
        ["PIPELINE", "TARGET", "WAITING", "GIVEN UP", "FAILING SINCE", "NEXT ATTEMPT", "REASON"];
    draw(&heading, &[2, 3], rows.collect())
}

pub(crate) fn resent_json(answer: &ResendDeliveriesResponse) -> Value {
    json!({ "deliveries": answer.deliveries, "runs": answer.runs })
}

pub(crate) fn resent(answer: &ResendDeliveriesResponse) -> String {
    let how = match answer.runs.as_slice() {
        [] => "behind what is going".to_owned(),
        runs => format!("by run {}", runs.join(", ")),
    };
    format!("{} webhooks are sent again {how}\n", grouped(answer.deliveries))
}
