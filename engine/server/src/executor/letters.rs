//! How much of what cannot be read is kept.
//!
//! A dead letter is a record, and records are not taken back before their retention ends: a sender that goes on sending
//! nonsense would fill the disk with it, and with the disk full nothing is taken any more. A refusal would lose more: its
//! sender would send the same again, and hold back what comes after. So every letter is kept, with why, from where and
//! how large; and beyond the allowance only the beginning of what came.

use std::time::Duration;

use stanch_core::record::DeadLetter;
use tokio::time::Instant;

/// How many bytes of bodies, in base64, are kept in one burst, and again in every [`REFILL`].
const BURST: usize = 64 << 20;
/// In what time a used up allowance is whole again.
const REFILL: Duration = Duration::from_secs(3600);
/// What is kept of a body beyond it; a multiple of four, at which base64 can be cut.
const BEGINNING: usize = 4096;

/// What may still be kept whole.
pub(super) struct Allowance {
    left: usize,
    at: Instant,
    used_up: bool,
}

impl Allowance {
    pub(super) fn new(now: Instant) -> Self {
        Self { left: BURST, at: now, used_up: false }
    }

    /// Takes a letter as it is, or cuts it to its beginning.
    pub(super) fn admit(&mut self, letter: &mut DeadLetter, now: Instant) {
        let back = now.duration_since(self.at).as_secs_f64() / REFILL.as_secs_f64() * BURST as f64;
        // What is less than a byte stays to be counted the next time.
        if back >= 1.0 {
            self.left = self.left.saturating_add(back as usize).min(BURST);
            self.at = now;
        }
        if letter.body.len() <= self.left.max(BEGINNING) {
            self.left = self.left.saturating_sub(letter.body.len());
            self.used_up &= self.left < BEGINNING;
            return;
        }
        if !self.used_up {
            tracing::warn!(
                via = letter.via,
                "more dead letters come than are kept whole, {} MiB an hour; of further ones only the beginning is",
                BURST >> 20
            );
        }
        self.used_up = true;
        letter.body.truncate(BEGINNING);
        letter.complete = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter(length: usize) -> DeadLetter {
        DeadLetter {
            via: "/webhooks/alertmanager".to_owned(),
            reason: String::new(),
            code: "alertmanager.invalid-json".to_owned(),
            content_type: None,
            body: "A".repeat(length),
            size: length as u64,
            complete: true,
        }
    }

    #[test]
    fn beyond_the_allowance_the_beginning_is_kept_and_time_gives_it_back() {
        let start = Instant::now();
        let mut allowance = Allowance::new(start);
        let mut kept = |length: usize, after: Duration| {
            let mut letter = letter(length);
            allowance.admit(&mut letter, start + after);
            assert_eq!(letter.size, length as u64, "how large it was is told in any case");
            (letter.body.len(), letter.complete)
        };
        let large = BURST / 4;
        for _ in 0..4 {
            assert_eq!(kept(large, Duration::ZERO), (large, true));
        }
        for _ in 0..3 {
            assert_eq!(kept(large, Duration::ZERO), (BEGINNING, false));
            assert_eq!(kept(100, Duration::ZERO), (100, true), "what is small is whole");
        }
        assert_eq!(kept(large, REFILL / 8), (BEGINNING, false));
        assert_eq!(kept(large, REFILL / 2), (large, true));
        assert_eq!(kept(BURST, REFILL * 10), (BURST, true));
        assert_eq!(kept(large, REFILL * 10), (BEGINNING, false));
    }
}
