//! Cron expressions in IANA time zones, with one rule for daylight saving (see [`Schedule`]). Nominal instants strictly
//! increase.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, Duration, MappedLocalTime, NaiveDateTime, TimeZone, Utc};
use chrono_tz::Tz;
use serde::{Deserialize, Serialize};

use crate::time::Timestamp;

/// The instants of a cron expression in a time zone. They are read off the zone's clock: a time that a change of it
/// leaves out fires once, at the first instant after the gap; a time that occurs twice fires once, the first time.
#[derive(Debug, Clone)]
pub struct Schedule {
    /// Which missed instants fire when the engine was not there.
    pub catch_up: CatchUp,
    text: String,
    zone: Tz,
    /// Two where both days of month and of week are given: cron takes either.
    engines: Vec<cron::Schedule>,
}

/// Which missed instants fire late.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CatchUp {
    /// None of them.
    #[default]
    None,
    /// The last of them.
    Last,
    /// All of them.
    All,
}

/// A text that is no cron expression.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScheduleError {
    /// The expression is wrong.
    #[error("{0}")]
    Cron(String),
    /// The time zone is not known.
    #[error("unknown time zone {0:?}; write an IANA name such as Europe/London")]
    Zone(String),
}

const ALIASES: [(&str, &str); 7] = [
    ("@hourly", "0 * * * *"),
    ("@daily", "0 0 * * *"),
    ("@midnight", "0 0 * * *"),
    ("@weekly", "0 0 * * 0"),
    ("@monthly", "0 0 1 * *"),
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
];

const MONTHS: [&str; 12] = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const DAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

/// One of the five fields.
struct Field {
    name: &'static str,
    first: u32,
    last: u32,
    names: &'static [&'static str],
}

const FIELDS: [Field; 5] = [
    Field { name: "minute", first: 0, last: 59, names: &[] },
    Field { name: "hour", first: 0, last: 23, names: &[] },
    Field { name: "day of month", first: 1, last: 31, names: &[] },
    Field { name: "month", first: 1, last: 12, names: &MONTHS },
    Field { name: "day of week", first: 0, last: 7, names: &DAYS },
];

impl Schedule {
    /// A schedule from five fields (minute, hour, day of month, month, day of week; 0 and 7 are Sunday) or an alias
    /// such as `@weekly`, and an IANA zone.
    ///
    /// # Errors
    /// [`ScheduleError`] where either is wrong, or no instant ever comes.
    pub fn parse(text: &str, zone: &str, catch_up: CatchUp) -> Result<Self, ScheduleError> {
        let zone_tz = Tz::from_str(zone).map_err(|_| ScheduleError::Zone(zone.chars().take(64).collect()))?;
        let engines = engines(text.trim()).map_err(ScheduleError::Cron)?;
        let schedule = Self { catch_up, text: text.trim().to_owned(), zone: zone_tz, engines };
        if schedule.next_naive(NaiveDateTime::default()).is_none() {
            return Err(ScheduleError::Cron("this day never comes".to_owned()));
        }
        Ok(schedule)
    }

    /// The first nominal instant after `after`; `None` where there is none any more (the calendar ends with 2100).
    #[must_use]
    pub fn next_after(&self, after: Timestamp) -> Option<Timestamp> {
        let mut local = after.to_chrono().with_timezone(&self.zone).naive_local();
        loop {
            local = self.next_naive(local)?;
            let at = Timestamp::from_chrono(self.instant(local)?);
            // In the hour that occurs twice, what fired in its first pass lies behind.
            if at > after {
                return Some(at);
            }
        }
    }

    /// The IANA name of its zone.
    #[must_use]
    pub fn zone(&self) -> &'static str {
        self.zone.name()
    }

    /// The first wall-clock time after another; knows nothing of zones.
    fn next_naive(&self, after: NaiveDateTime) -> Option<NaiveDateTime> {
        let after = DateTime::<Utc>::from_naive_utc_and_offset(after, Utc);
        self.engines.iter().filter_map(|engine| engine.after(&after).next()).min().map(|next| next.naive_utc())
    }

    /// When a wall-clock time fires.
    fn instant(&self, local: NaiveDateTime) -> Option<DateTime<Utc>> {
        // The longest gap on record is a whole day (Samoa left out 30 December 2011).
        (0..=25 * 60).find_map(|minutes| match self.zone.from_local_datetime(&(local + Duration::minutes(minutes))) {
            MappedLocalTime::Single(at) | MappedLocalTime::Ambiguous(at, _) => Some(at.with_timezone(&Utc)),
            MappedLocalTime::None => None,
        })
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.text, self.zone.name())
    }
}

fn engines(text: &str) -> Result<Vec<cron::Schedule>, String> {
    let text = match text.strip_prefix('@') {
        Some(_) => {
            let known = ALIASES.map(|(alias, _)| alias).join(", ");
            let alias = ALIASES.iter().find(|(alias, _)| alias.eq_ignore_ascii_case(text));
            alias.ok_or_else(|| format!("unknown alias {text:?}; known are {known}"))?.1
        }
        None => text,
    };
    let fields: Vec<&str> = text.split_whitespace().collect();
    let [minute, hour, day, month, weekday] = fields.as_slice() else {
        return Err(format!("{} fields; write five: minute hour day-of-month month day-of-week", fields.len()));
    };
    let mut values = Vec::with_capacity(5);
    for (field, text) in FIELDS.iter().zip([minute, hour, day, month, weekday]) {
        values.push(field.values(text)?);
    }
    // The crate counts weekdays from 1 for Sunday.
    let weekdays: BTreeSet<u32> = values[4].iter().map(|day| day % 7 + 1).collect();
    let list = |values: &BTreeSet<u32>| values.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    let engine = |days: &str, weekdays: &str| {
        let text = format!("0 {} {} {days} {} {weekdays} *", list(&values[0]), list(&values[1]), list(&values[3]));
        cron::Schedule::from_str(&text).map_err(|error| error.to_string())
    };
    // As Vixie's cron has it: where both are given, either day will do; a field that begins with * is not "given".
    if !day.starts_with('*') && !weekday.starts_with('*') {
        return Ok(vec![engine(&list(&values[2]), "*")?, engine("*", &list(&weekdays))?]);
    }
    let all_week = weekdays.len() == 7;
    Ok(vec![engine(&list(&values[2]), if all_week { "*".to_owned() } else { list(&weekdays) }.as_str())?])
}

impl Field {
    fn values(&self, text: &str) -> Result<BTreeSet<u32>, String> {
        let mut values = BTreeSet::new();
        for item in text.split(',') {
            let (range, step) = match item.split_once('/') {
                Some((range, step)) => (range, Some(step)),
                None => (item, None),
            };
            let (from, until) = match (range, range.split_once('-')) {
                ("*", _) => (self.first, if self.last == 7 { 6 } else { self.last }),
                (_, Some((from, until))) => (self.number(from)?, self.number(until)?),
                (_, None) if step.is_none() => (self.number(range)?, self.number(range)?),
                (_, None) => return Err(format!("{}: a step needs a range, such as */5 or 0-30/5", self.name)),
            };
            let step = match step {
                None => 1,
                Some(step) => step
                    .parse::<u32>()
                    .ok()
                    .filter(|step| (1..=self.last).contains(step))
                    .ok_or_else(|| format!("{}: {step:?} is no step from 1 to {}", self.name, self.last))?,
            };
            if from > until {
                return Err(format!("{}: the range {range} runs backwards", self.name));
            }
            values.extend((from..=until).step_by(step as usize));
        }
        Ok(values)
    }

    fn number(&self, text: &str) -> Result<u32, String> {
        let folded = text.to_ascii_lowercase();
        if let Some(index) = self.names.iter().position(|name| *name == folded) {
            return Ok(u32::try_from(index).unwrap_or(0) + self.first);
        }
        let number = text.parse::<u32>().ok().filter(|number| (self.first..=self.last).contains(number));
        number.filter(|_| text.bytes().all(|byte| byte.is_ascii_digit())).ok_or_else(|| {
            let text: String = text.chars().take(32).collect();
            let also = if self.names.is_empty() {
                String::new()
            } else {
                format!(" or a name such as {}", self.names[1].to_uppercase())
            };
            format!("{}: {text:?} is no number from {} to {}{also}", self.name, self.first, self.last)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn next(cron: &str, zone: &str, after: &str, count: usize) -> Vec<String> {
        let schedule = Schedule::parse(cron, zone, CatchUp::None).unwrap();
        let mut at = Timestamp::parse(after).unwrap();
        let mut found = Vec::new();
        for _ in 0..count {
            let next = schedule.next_after(at).unwrap();
            assert!(next > at, "instants increase");
            at = next;
            found.push(at.to_string());
        }
        found
    }

    #[track_caller]
    fn check(cron: &str, zone: &str, after: &str, expected: &[&str]) {
        assert_eq!(next(cron, zone, after, expected.len()), expected, "{cron} in {zone} after {after}");
    }

    #[test]
    fn weekdays_count_from_sunday_as_in_cron() {
        // 2026-11-21 is a Saturday.
        check("0 9 * * 0", "UTC", "2026-11-21T00:00:00Z", &["2026-11-22T09:00:00Z"]);
        check("0 9 * * 7", "UTC", "2026-11-21T00:00:00Z", &["2026-11-22T09:00:00Z"]);
        check("0 9 * * MON", "UTC", "2026-11-21T00:00:00Z", &["2026-11-23T09:00:00Z"]);
        check("0 9 * * 1-5", "UTC", "2026-11-26T10:00:00Z", &["2026-11-27T09:00:00Z", "2026-11-30T09:00:00Z"]);
        check(
            "0 9 * * fri-7",
            "UTC",
            "2026-11-20T10:00:00Z",
            &["2026-11-21T09:00:00Z", "2026-11-22T09:00:00Z", "2026-11-27T09:00:00Z"],
        );
    }

    #[test]
    fn a_day_of_month_and_a_day_of_week_are_either_or() {
        check(
            "0 0 13 * FRI",
            "UTC",
            "2026-11-10T00:00:00Z",
            &["2026-11-13T00:00:00Z", "2026-11-20T00:00:00Z", "2026-11-27T00:00:00Z"],
        );
        check("0 0 15 * FRI", "UTC", "2026-11-14T00:00:00Z", &["2026-11-15T00:00:00Z", "2026-11-20T00:00:00Z"]);
        check("0 0 */2 * FRI", "UTC", "2026-11-10T00:00:00Z", &["2026-11-13T00:00:00Z", "2026-11-27T00:00:00Z"]);
    }

    #[test]
    fn aliases_mean_what_cron_means() {
        check("@weekly", "UTC", "2026-11-21T12:00:00Z", &["2026-11-22T00:00:00Z"]);
        check("@hourly", "UTC", "2026-11-21T12:00:00Z", &["2026-11-21T13:00:00Z"]);
        check("@monthly", "Europe/London", "2026-06-21T12:00:00Z", &["2026-06-30T23:00:00Z"]);
        check("@annually", "UTC", "2026-11-21T12:00:00Z", &["2027-01-01T00:00:00Z"]);
        check("*/20 8-9 * feb *", "UTC", "2026-11-21T12:00:00Z", &["2027-02-01T08:00:00Z", "2027-02-01T08:20:00Z"]);
        check("0 0 29 2 *", "UTC", "2026-11-21T12:00:00Z", &["2028-02-29T00:00:00Z"]);
    }

    #[test]
    fn a_time_in_the_spring_gap_fires_once_after_it() {
        // New York leaves out 02:00 to 03:00 on 2026-03-08; London 01:00 to 02:00 on 2026-03-29.
        check(
            "30 2 * * *",
            "America/New_York",
            "2026-03-07T12:00:00Z",
            &["2026-03-08T07:00:00Z", "2026-03-09T06:30:00Z"],
        );
        check(
            "*/30 * * * *",
            "Europe/London",
            "2026-03-29T00:30:00Z",
            &["2026-03-29T01:00:00Z", "2026-03-29T01:30:00Z"],
        );
        check("30 1 * * *", "Europe/London", "2026-03-28T12:00:00Z", &["2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z"]);
        // Lord Howe moves by half an hour, at 02:00 local time on 2026-10-04.
        check(
            "15 2 * * *",
            "Australia/Lord_Howe",
            "2026-10-03T00:00:00Z",
            &["2026-10-03T15:30:00Z", "2026-10-04T15:15:00Z"],
        );
        // Samoa left out the whole of 2011-12-30.
        check(
            "0 12 * * *",
            "Pacific/Apia",
            "2011-12-29T00:00:00Z",
            &["2011-12-29T22:00:00Z", "2011-12-30T10:00:00Z", "2011-12-30T22:00:00Z"],
        );
    }

    #[test]
    fn a_time_that_occurs_twice_fires_at_the_first() {
        // New York repeats 01:00 to 02:00 on 2026-11-01, London on 2026-10-25.
        check(
            "30 1 * * *",
            "America/New_York",
            "2026-10-31T12:00:00Z",
            &["2026-11-01T05:30:00Z", "2026-11-02T06:30:00Z"],
        );
        check("30 1 * * *", "America/New_York", "2026-11-01T05:45:00Z", &["2026-11-02T06:30:00Z"]);
        check(
            "*/30 * * * *",
            "Europe/London",
            "2026-10-25T00:00:00Z",
            &["2026-10-25T00:30:00Z", "2026-10-25T02:00:00Z"],
        );
        check(
            "45 1 * * *",
            "Australia/Lord_Howe",
            "2026-04-04T00:00:00Z",
            &["2026-04-04T14:45:00Z", "2026-04-05T15:15:00Z"],
        );
    }

    const ZONES: [&str; 20] = [
        "Africa/Cairo",
        "Africa/Casablanca",
        "America/Asuncion",
        "America/Havana",
        "America/Los_Angeles",
        "America/New_York",
        "America/Santiago",
        "America/Scoresbysund",
        "America/St_Johns",
        "Antarctica/Troll",
        "Asia/Beirut",
        "Asia/Gaza",
        "Asia/Jerusalem",
        "Australia/Lord_Howe",
        "Australia/Sydney",
        "Europe/Berlin",
        "Europe/Dublin",
        "Europe/London",
        "Pacific/Auckland",
        "Pacific/Chatham",
    ];

    /// Every change of a zone's clock from 2020 to 2040: the instant, and the offsets in minutes before and after.
    fn transitions(zone: Tz) -> Vec<(DateTime<Utc>, i64, i64)> {
        use chrono::Offset;
        let offset =
            |at: DateTime<Utc>| i64::from(zone.offset_from_utc_datetime(&at.naive_utc()).fix().local_minus_utc() / 60);
        let day = |year| Utc.with_ymd_and_hms(year, 1, 1, 0, 0, 0).unwrap();
        let (mut at, mut found) = (day(2020), Vec::new());
        while at < day(2041) {
            let next = at + Duration::hours(6);
            if offset(at) != offset(next) {
                let minutes: Vec<_> = (0..=360).map(|minute| at + Duration::minutes(minute)).collect();
                let first = minutes.windows(2).find(|pair| offset(pair[0]) != offset(pair[1])).unwrap()[1];
                found.push((first, offset(at), offset(next)));
            }
            at = next;
        }
        found
    }

    #[test]
    fn over_every_change_of_the_clock_each_nominal_time_fires_once() {
        use chrono::{Datelike, Timelike};
        let mut changes = 0;
        for name in ZONES {
            let zone: Tz = name.parse().unwrap();
            for (change, before, after) in transitions(zone) {
                changes += 1;
                let local = |offset: i64| (change + Duration::minutes(offset)).naive_utc();
                // What the clock leaves out, or shows twice.
                let (from, until) = (local(before.min(after)), local(before.max(after)));
                let length = (until - from).num_minutes();
                for minute in [-61, -1, 0, 1, length / 2, length - 1, length, length + 1, length + 61] {
                    let nominal = from + Duration::minutes(minute);
                    let inside = (0..length).contains(&minute);
                    let expected = match (inside, after > before) {
                        (true, true) => change,
                        // The first of two, and whatever lies before the change.
                        (true, false) => (nominal - Duration::minutes(before)).and_utc(),
                        (false, _) if minute < 0 => (nominal - Duration::minutes(before)).and_utc(),
                        (false, _) => (nominal - Duration::minutes(after)).and_utc(),
                    };
                    let cron =
                        format!("{} {} {} {} *", nominal.minute(), nominal.hour(), nominal.day(), nominal.month());
                    let schedule = Schedule::parse(&cron, name, CatchUp::None).unwrap();
                    let start = Timestamp::from_chrono(change - Duration::days(3));
                    let first = schedule.next_after(start).unwrap();
                    assert_eq!(first, Timestamp::from_chrono(expected), "{cron} in {name} at {change}");
                    let second = schedule.next_after(first).unwrap();
                    let apart = second.since(first).as_secs() / 86_400;
                    assert!(apart > 300, "{cron} in {name} fires again after {apart} days");
                }
                // However often it is asked, and from wherever: each quarter of an hour of the clock once, in order.
                let schedule = Schedule::parse("*/15 * * * *", name, CatchUp::None).unwrap();
                let end = Timestamp::from_chrono(change + Duration::hours(30));
                let mut at = Timestamp::from_chrono(change - Duration::hours(30));
                let mut shown = BTreeSet::new();
                while let Some(next) = schedule.next_after(at).filter(|next| *next < end) {
                    assert!(next > at);
                    assert!(
                        shown.insert(next.to_chrono().with_timezone(&zone).naive_local()),
                        "{name}: {next} repeats"
                    );
                    at = next;
                }
                assert!((230..=250).contains(&shown.len()), "{name} at {change}: {}", shown.len());
            }
        }
        assert!(changes > 600, "only {changes} changes");
    }

    #[test]
    fn wrong_expressions_are_refused_with_the_field() {
        let errors: Vec<String> = [
            "",
            "* * * *",
            "0 * * * * *",
            "60 * * * *",
            "* 24 * * *",
            "* * 0 * *",
            "* * * 13 *",
            "* * * * 8",
            "* * * * L",
            "5/10 * * * *",
            "*/0 * * * *",
            "30-10 * * * *",
            "@every 5m",
            "0 0 30 2 *",
            "+1 * * * *",
            "1,,2 * * * *",
            "* * * * MONDAY",
        ]
        .iter()
        .map(|text| format!("{text:?}: {}", Schedule::parse(text, "UTC", CatchUp::None).unwrap_err()))
        .collect();
        insta::assert_snapshot!(errors.join("\n"));
        assert!(matches!(Schedule::parse("@daily", "Mars/Olympus", CatchUp::None), Err(ScheduleError::Zone(_))));
    }
}
