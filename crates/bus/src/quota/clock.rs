use std::{collections::VecDeque, time::Instant};

/// Clocks drift apart by at most this part of the time, in millionths.
const DRIFT: i64 = 200;
/// Bounds that miss each other by more are no drift: the broker's clock was set.
const JUMP: i64 = 20_000;
/// Own writes whose time of storing may still be told.
const WRITES: usize = 64;

/// What a process knows of the broker's time, as microseconds of the document of a quota.
///
/// A message that is here was stored before now, and what this process writes is stored after it
/// was sent. That gives two bounds of the difference between the broker's clock and the monotonic
/// one of this process, whose wall clock does not matter.
#[derive(Debug)]
pub(super) struct Clock {
    start: Instant,
    /// The difference is at least and at most, since when.
    least: Option<(i64, i64)>,
    most: Option<(i64, i64)>,
    /// Own writes: revision and when they were sent.
    writes: VecDeque<(u64, i64)>,
    /// Revisions and when they were stored; one may be told before its write is acknowledged.
    told: VecDeque<(u64, i64)>,
}

impl Clock {
    pub(super) fn new(start: Instant) -> Self {
        Self { start, least: None, most: None, writes: VecDeque::new(), told: VecDeque::new() }
    }

    fn local(&self, at: Instant) -> i64 {
        i64::try_from(at.saturating_duration_since(self.start).as_micros()).unwrap_or(i64::MAX / 2)
    }

    /// Returns the time that it is at least, if anything is known.
    pub(super) fn earliest(&self, at: Instant) -> Option<i64> {
        let at = self.local(at);
        self.least_at(at).map(|least| at + least)
    }

    /// Returns the time that it is at most, once the time of an own write is known.
    pub(super) fn latest(&self, at: Instant) -> Option<i64> {
        let at = self.local(at);
        self.most_at(at).map(|most| at + most)
    }

    fn least_at(&self, at: i64) -> Option<i64> {
        self.least.map(|(least, since)| least - drift(at - since))
    }

    fn most_at(&self, at: i64) -> Option<i64> {
        self.most.map(|(most, since)| most + drift(at - since))
    }

    /// Notes that an own write was sent that got a revision.
    pub(super) fn wrote(&mut self, revision: u64, sent: Instant) {
        let sent = self.local(sent);
        if let Some((_, stored)) = self.told.iter().find(|(told, _)| *told == revision) {
            self.bound(stored - sent, sent);
        }
        keep(&mut self.writes, (revision, sent));
    }

    /// Forgets the numbers of writes, which a new broker gives anew.
    pub(super) fn forget_writes(&mut self) {
        self.writes.clear();
        self.told.clear();
    }

    /// Learns that a revision was stored at a time of the document and arrived here. Returns by how
    /// much the broker's clock was set ahead, if it does not fit what was known; then nothing is
    /// learned.
    pub(super) fn learn(&mut self, revision: u64, stored: i64, arrived: Instant) -> Option<i64> {
        let arrived = self.local(arrived);
        let sent = self.writes.iter().find(|(own, _)| *own == revision).map(|(_, sent)| *sent);
        let least = stored - arrived;
        if let Some(known) = self.most_at(arrived)
            && least > known + JUMP
        {
            return Some(least - known);
        }
        let most = sent.map(|sent| stored - sent);
        if let (Some(most), Some(known)) = (most, self.least_at(arrived))
            && most < known - JUMP
        {
            return Some(most - known);
        }
        if self.least_at(arrived).is_none_or(|known| least > known) {
            self.least = Some((least, arrived));
        }
        match most {
            Some(most) => self.bound(most, arrived),
            None => keep(&mut self.told, (revision, stored)),
        }
        None
    }

    fn bound(&mut self, most: i64, at: i64) {
        if self.most_at(at).is_none_or(|known| most < known) {
            self.most = Some((most, at));
        }
    }

    /// Returns the moment from which it is a time for certain.
    pub(super) fn surely_at(&self, time: i64, now: Instant) -> Option<Instant> {
        let ahead = time - self.earliest(now)?;
        Some(shifted(now, ahead))
    }
}

fn keep(list: &mut VecDeque<(u64, i64)>, entry: (u64, i64)) {
    list.push_back(entry);
    if list.len() > WRITES {
        list.pop_front();
    }
}

fn drift(elapsed: i64) -> i64 {
    elapsed.max(0) / 1_000_000 * DRIFT + elapsed.max(0) % 1_000_000 * DRIFT / 1_000_000
}

fn shifted(now: Instant, micros: i64) -> Instant {
    let by = std::time::Duration::from_micros(micros.unsigned_abs());
    if micros >= 0 { now + by } else { now.checked_sub(by).unwrap_or(now) }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const BROKER: i64 = 1_700_000_000_000_000;

    /// The broker's clock showed `BROKER` when the process started.
    fn at(start: Instant, millis: u64) -> (Instant, i64) {
        (start + Duration::from_millis(millis), BROKER + i64::try_from(millis).unwrap() * 1_000)
    }

    #[test]
    fn the_time_lies_between_the_bounds() {
        let start = Instant::now();
        let mut clock = Clock::new(start);
        assert_eq!((clock.earliest(start), clock.latest(start)), (None, None));
        // A message of long ago says little.
        assert_eq!(clock.learn(1, BROKER - 9_000_000, start), None);
        assert_eq!(clock.earliest(start), Some(BROKER - 9_000_000));
        assert_eq!(clock.latest(start), None);
        for round in 1..20 {
            let (sent, _) = at(start, round * 100);
            let (_, stored) = at(start, round * 100 + 2);
            let (arrived, _) = at(start, round * 100 + 5);
            clock.wrote(round + 1, sent);
            assert_eq!(clock.learn(round + 1, stored, arrived), None);
            let (now, time) = at(start, round * 100 + 50);
            let (earliest, latest) = (clock.earliest(now).unwrap(), clock.latest(now).unwrap());
            assert!((time - 3_100..=time).contains(&earliest), "{}", time - earliest);
            assert!((time..=time + 2_100).contains(&latest), "{}", latest - time);
        }
    }

    #[test]
    fn a_clock_that_was_set_is_noticed_and_not_believed() {
        let start = Instant::now();
        let mut clock = Clock::new(start);
        clock.wrote(1, start);
        assert_eq!(clock.learn(1, BROKER + 1_000, at(start, 2).0), None);
        let (now, time) = at(start, 60_000);
        let jump = clock.learn(2, time + 3_600_000_000, now).unwrap();
        assert!(jump.abs_diff(3_600_000_000) < 20_000, "{jump}");
        clock.wrote(3, now);
        let (later, _) = at(start, 60_005);
        let jump = clock.learn(3, time - 3_600_000_000, later).unwrap();
        assert!(jump.abs_diff(-3_600_000_000) < 30_000, "{jump}");
        assert!(clock.latest(now).unwrap().abs_diff(time) < 20_000);
        // The corrected time fits again.
        assert_eq!(clock.learn(4, time, later), None);
    }
}
