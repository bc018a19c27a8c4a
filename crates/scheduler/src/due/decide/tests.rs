use chrono::NaiveDateTime;

use super::*;

fn utc(text: &str) -> DateTime<Utc> {
    NaiveDateTime::parse_from_str(text, "%Y-%m-%d %H:%M:%S").unwrap().and_utc()
}

/// One pipeline under a clock that the test moves.
struct World {
    name: PipelineName,
    triggers: Triggers,
    schedule: Option<Schedule>,
    successes: BTreeMap<PipelineName, DateTime<Utc>>,
    going: Option<String>,
    waiting: usize,
}

impl World {
    fn new(triggers: &str) -> Self {
        let yaml = format!(
            "pipeline: shop\nsource: {{csv: {{path: a}}}}\nkey: [a]\ntriggers: {{{triggers}}}\n\
             targets: {{t: {{sqlite: {{path: a, table: a}}}}}}"
        );
        Self {
            name: "shop".parse().unwrap(),
            triggers: spec::parse("shop", &yaml).unwrap().triggers,
            schedule: None,
            successes: BTreeMap::new(),
            going: None,
            waiting: 0,
        }
    }

    fn decide(&self, now: &str) -> Option<Decision> {
        decide(&Situation {
            pipeline: &self.name,
            triggers: &self.triggers,
            schedule: self.schedule.as_ref(),
            successes: &self.successes,
            going: self.going.clone(),
            waiting: self.waiting,
            now: utc(now),
            on_time: Duration::from_secs(60),
        })
    }

    /// Moves on and tells what takes place and what is skipped: `+`, or `-` with the number.
    fn look(&mut self, now: &str) -> Vec<String> {
        let Some(decision) = self.decide(now) else { return Vec::new() };
        self.schedule = Some(decision.then);
        let time = |at: DateTime<Utc>| at.format("%d %H:%M:%S").to_string();
        let runs = decision.runs.iter().map(|due| format!("+{}", time(due.at)));
        let skips = decision.skips.iter().map(|(skip, _)| {
            let (first, last) = (time(skip.first), time(skip.last));
            format!("-{} {first}..{last}: {}", skip.number, skip.reason)
        });
        runs.chain(skips).collect()
    }
}

#[test]
fn a_pipeline_without_triggers_is_never_due() {
    assert_eq!(World::new("priority: 3").decide("2026-01-01 00:00:00"), None);
}

#[test]
fn an_interval_begins_at_once_and_the_calendar_with_its_next_time() {
    let mut every = World::new("every: 10m");
    assert_eq!(every.look("2026-01-01 00:00:07"), ["+01 00:00:07"]);
    assert!(every.look("2026-01-01 00:10:06").is_empty());
    assert_eq!(every.look("2026-01-01 00:10:08"), ["+01 00:10:07"]);
    let mut cron = World::new("cron: '0 2 * * *'");
    assert!(cron.look("2026-01-01 02:30:00").is_empty());
    assert_eq!(cron.look("2026-01-02 02:00:01"), ["+02 02:00:00"]);
}

#[test]
fn who_sees_the_same_decides_the_same() {
    let mut one = World::new("every: {every: 1m, jitter: 30s}, cron: '*/7 * * * *'");
    one.look("2026-01-01 00:00:00");
    let two = World { schedule: one.schedule.clone(), ..World::new("every: 1m") };
    let two = World { triggers: one.triggers.clone(), ..two };
    for now in ["2026-01-01 00:01:40", "2026-01-01 00:07:00", "2026-01-01 03:00:00"] {
        let keys = |world: &World| world.decide(now).map(|decision| decision.runs);
        assert_eq!(keys(&one), keys(&two), "{now}");
    }
}

#[test]
fn changed_triggers_begin_anew() {
    let mut world = World::new("every: 10m");
    world.look("2026-01-01 00:00:00");
    world.triggers = World::new("every: 20m").triggers;
    assert_eq!(world.look("2026-01-01 00:05:00"), ["+01 00:05:00"]);
    world.triggers = World::new("every: 20m, priority: 9").triggers;
    assert!(world.look("2026-01-01 00:06:00").is_empty());
}

#[test]
fn a_clock_that_is_set_back_does_not_stop_an_interval() {
    let mut world = World::new("every: 10m");
    world.look("2026-01-01 05:00:00");
    assert!(world.look("2026-01-01 04:59:30").is_empty(), "clocks are corrected a little");
    assert_eq!(world.look("2026-01-01 01:00:00"), ["+01 01:00:00"]);
    assert!(world.look("2026-01-01 01:09:00").is_empty());
    assert_eq!(world.look("2026-01-01 01:10:01"), ["+01 01:10:00"]);
}

#[test]
fn a_time_of_the_calendar_has_the_same_key_after_a_clock_was_set_back() {
    let mut world = World::new("cron: '0 * * * *'");
    world.look("2026-01-01 00:30:00");
    let key = |world: &World| world.decide("2026-01-01 01:00:01").unwrap().runs[0].key.clone();
    let first = key(&world);
    world.look("2026-01-01 01:00:01");
    assert!(world.look("2026-01-01 00:40:00").is_empty());
    assert_eq!(key(&world), first);
}

#[test]
fn missed_times_are_caught_up_as_declared() {
    let missed = |policy: &str| {
        let mut world = World::new(&format!("cron: '0 * * * *', catch_up: {policy}"));
        world.look("2026-01-01 00:30:00");
        world.look("2026-01-01 04:30:00")
    };
    assert_eq!(
        missed("one"),
        ["+01 04:00:00", "-3 01 01:00:00..01 03:00:00: a later due time took its place"]
    );
    assert_eq!(
        missed("none"),
        ["-4 01 01:00:00..01 04:00:00: no scheduler was there at that time"]
    );
    assert_eq!(missed("all"), ["+01 01:00:00", "+01 02:00:00", "+01 03:00:00", "+01 04:00:00"]);
}

#[test]
fn without_catching_up_what_is_seen_soon_still_takes_place() {
    let mut world = World::new("cron: '0 * * * *', catch_up: none");
    world.look("2026-01-01 00:30:00");
    assert_eq!(world.look("2026-01-01 01:00:59"), ["+01 01:00:00"]);
}

#[test]
fn a_long_gap_is_accounted_for_in_full() {
    for policy in ["one", "none", "all"] {
        let mut world = World::new(&format!("every: 1m, catch_up: {policy}"));
        world.look("2026-01-01 00:00:00");
        let (mut taken, mut skipped, mut rounds) = (0, 0, 0);
        while let Some(decision) = world.decide("2026-01-04 00:00:30") {
            taken += decision.runs.len() as u64;
            skipped += decision.skips.iter().map(|(skip, _)| skip.number).sum::<u64>();
            world.schedule = Some(decision.then);
            rounds += 1;
            assert!(rounds < 10);
        }
        assert_eq!(taken + skipped, 3 * 24 * 60, "{policy}");
        match policy {
            "all" => assert_eq!(taken, 500, "a hundred in each of five looks"),
            _ => assert_eq!(taken, 1, "{policy}"),
        }
    }
}

#[test]
fn a_run_that_is_still_going_has_the_next_one_skipped_queued_or_gives_way() {
    let overlap = |policy: &str| {
        let mut world = World::new(&format!("every: 1m, overlap: {policy}"));
        world.look("2026-01-01 00:00:00");
        world.going = Some("r1".to_owned());
        world
    };
    let mut skip = overlap("skip");
    let reason = "run `r1` was still going";
    assert_eq!(
        skip.look("2026-01-01 00:01:01"),
        [format!("-1 01 00:01:00..01 00:01:00: {reason}")]
    );
    let mut queue = overlap("queue");
    assert_eq!(queue.look("2026-01-01 00:01:01"), ["+01 00:01:00"]);
    queue.waiting = 100;
    assert_eq!(
        queue.look("2026-01-01 00:02:01"),
        ["-1 01 00:02:00..01 00:02:00: 100 runs were waiting already"]
    );
    let cancel = overlap("cancel").decide("2026-01-01 00:01:01").unwrap();
    assert!(cancel.cancel && cancel.runs.len() == 1);
}

#[test]
fn what_is_due_outside_of_the_windows_is_skipped_until_they_open() {
    let mut world = World::new(
        "cron: '0 * * * *', timezone: Europe/Berlin, windows: {allowed: ['22:00-05:00']}",
    );
    world.look("2026-01-01 02:30:00");
    // 05:00 in Berlin is 04:00 UTC, and no longer in the window.
    assert_eq!(world.look("2026-01-01 03:00:10"), ["+01 03:00:00"]);
    let closed = "outside of its windows, the next of which begins at 2026-01-01 22:00 \
                  (Europe/Berlin)";
    for hour in ["04", "05", "20"] {
        let skipped = world.look(&format!("2026-01-01 {hour}:00:10"));
        assert!(skipped[0].ends_with(closed), "{skipped:?}");
    }
    let causes: Vec<_> = ["06", "07"]
        .map(|hour| world.decide(&format!("2026-01-02 {hour}:00:10")).unwrap().skips)
        .into_iter()
        .map(|skips| skips.into_iter().find_map(|(skip, _)| skip.cause))
        .collect();
    assert!(causes[0].is_some() && causes[0] == causes[1], "{causes:?}");
    assert_eq!(world.look("2026-01-01 21:00:10"), ["+01 21:00:00"]);
}

#[test]
fn a_pipeline_follows_others_once_all_have_succeeded_again() {
    let mut world = World::new("after: [customers, orders]");
    let success = |world: &mut World, name: &str, at: &str| {
        world.successes.insert(name.parse().unwrap(), utc(at));
    };
    success(&mut world, "customers", "2026-01-01 00:00:00");
    // What succeeded before it was declared is past.
    assert!(world.look("2026-01-01 00:01:00").is_empty());
    success(&mut world, "orders", "2026-01-01 00:02:00");
    assert!(world.look("2026-01-01 00:03:00").is_empty());
    success(&mut world, "customers", "2026-01-01 00:04:00");
    assert_eq!(world.look("2026-01-01 00:05:00"), ["+01 00:04:00"]);
    success(&mut world, "customers", "2026-01-01 00:06:00");
    success(&mut world, "customers", "2026-01-01 00:07:00");
    assert!(world.look("2026-01-01 00:08:00").is_empty());
    success(&mut world, "orders", "2026-01-01 00:09:00");
    assert_eq!(world.look("2026-01-01 00:10:00"), ["+01 00:09:00"]);
    assert!(world.look("2026-01-01 00:11:00").is_empty());
}

#[test]
fn a_chain_goes_on_link_by_link() {
    let mut second = World::new("after: [first]");
    let mut third = World::new("after: [second]");
    second.look("2026-01-01 00:00:00");
    third.look("2026-01-01 00:00:00");
    second.successes.insert("first".parse().unwrap(), utc("2026-01-01 01:00:00"));
    assert_eq!(second.look("2026-01-01 01:00:01"), ["+01 01:00:00"]);
    assert!(third.look("2026-01-01 01:00:01").is_empty());
    third.successes.insert("second".parse().unwrap(), utc("2026-01-01 01:05:00"));
    assert_eq!(third.look("2026-01-01 01:05:01"), ["+01 01:05:00"]);
}
