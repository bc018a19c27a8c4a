//! Seals what is kept with the newest key.

use std::fmt::Write;

use anyhow::Context;
use runtime::{config::Environment, shutdown, telemetry};
use scheduler::Resealed;
use serde_json::{Value, json};

use crate::{
    cli::{Format, Service},
    failure::Failure,
    output::{Output, table},
    service::{install_crypto, settings},
};

pub(crate) async fn run(options: Service, format: Format) -> Result<(), Failure> {
    let environment = Environment::of_process();
    let (mut process, config) =
        settings::<scheduler::Config>("scheduler", options.config.as_deref(), &environment)
            .context("the settings cannot be used")?;
    install_crypto();
    // It ends; its log is what remains.
    process.telemetry.otlp_endpoint = None;
    let telemetry =
        telemetry::init("reseal", &process.telemetry).context("the log cannot be set up")?;
    let shutdown = shutdown::on_signal().context("signals cannot be listened to")?;
    let outcome = tokio::select! {
        outcome = scheduler::reseal(config, &shutdown) => outcome,
        () = shutdown.cancelled() => Err(anyhow::anyhow!("it was ended; repeating it goes on")),
    };
    telemetry.flush().await;
    let resealed = outcome?;
    Output::new(format).print(|| in_json(&resealed), || in_text(&resealed))?;
    if resealed.is_complete() && resealed.damaged() == 0 { Ok(()) } else { Err(Failure::Result) }
}

fn in_json(resealed: &Resealed) -> Value {
    let kept = resealed.kept.iter().map(|kept| {
        json!({
            "place": kept.place,
            "renewed": kept.renewal.renewed,
            "left": kept.renewal.left,
            "damaged": kept.renewal.damaged,
        })
    });
    json!({
        "key": resealed.key,
        "removable": resealed.removable,
        "complete": resealed.is_complete(),
        "kept": kept.collect::<Value>(),
    })
}

fn in_text(resealed: &Resealed) -> String {
    let rows = resealed.kept.iter().map(|kept| {
        let of_keys = kept.renewal.left.iter().map(|(id, number)| match kept.passes {
            true => format!("under `{id}`, until it is worked off"),
            false => format!("{number} under `{id}`"),
        });
        let damaged =
            (kept.renewal.damaged > 0).then(|| format!("{} damaged", kept.renewal.damaged));
        let left: Vec<String> = of_keys.chain(damaged).collect();
        vec![kept.place.clone(), table::grouped(kept.renewal.renewed), left.join(", ")]
    });
    let mut text = table::draw(&["KEPT IN", "SEALED ANEW", "LEFT"], &[1], rows.collect());
    let (key, removable) = (&resealed.key, resealed.removable.join("`, `"));
    let said = match (resealed.is_complete(), removable.is_empty()) {
        (true, true) => writeln!(text, "nothing is kept under another key than `{key}`"),
        (true, false) => writeln!(
            text,
            "nothing is kept under another key than `{key}`; these can be removed: `{removable}`"
        ),
        (false, _) => writeln!(text, "keep the keys that are named under LEFT, and repeat this"),
    };
    said.expect("a text can be written to");
    if resealed.damaged() > 0 {
        text.push_str("what is damaged was changed or moved, and no key opens it\n");
    }
    text
}
