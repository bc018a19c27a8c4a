//! `kill -9` of a service at random moments in the middle of a run.

use std::time::Duration;

use tests::{Layout, Role, Seed, Seen, System};

use crate::Story;

const KILLS: usize = 5;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_extractor_loses_and_doubles_nothing() {
    killed(Role::Extractor, |seen| seen.raw).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_transformer_loses_and_doubles_nothing() {
    killed(Role::Transformer, |seen| seen.ready).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_loader_loses_and_doubles_nothing() {
    killed(Role::Loader, |seen| seen.loaded).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_scheduler_loses_and_doubles_nothing() {
    // The others go on without it, and its start takes a while.
    killed(Role::Scheduler, |seen| seen.loaded).await;
}

/// Kills the only process of a role whenever `progress` has gone on by a random number.
async fn killed(role: Role, progress: impl Fn(&Seen) -> u64) {
    let mut seed = Seed::of_test(&format!("kills of the {}", role.name()));
    let system = System::start(Layout::for_faults()).await;
    let mut story = Story::begin(system, seed.number(), 10).await;
    for kill in 1..=KILLS {
        let (step, pause) = (seed.between(2, 15), seed.between(0, 40));
        let reached = progress(&story.tap.seen()) + step;
        let seen = story.tap.until(|seen| progress(seen) >= reached).await;
        tokio::time::sleep(Duration::from_millis(pause)).await;
        story.is_running().await;
        let service = story.system.service(role);
        let pid = service.process.kill().await.expect("the process was running");
        eprintln!("kill {kill} of the {} {pid}, {pause} ms after {seen:?}", role.name());
        service.start().await;
        assert_ne!(service.process.pid(), Some(pid));
    }
    story.ends_complete().await;
}
