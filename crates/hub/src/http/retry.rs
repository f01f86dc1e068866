//! How long to wait before the next attempt, and when to give up.

use std::time::{Duration, SystemTime};

use reqwest::header::{HeaderMap, RETRY_AFTER};

use crate::{Error, Settings};

/// The longest pause of our own.
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// The longest pause that a service gets; Hugging Face counts in windows of 300 s.
const WANTED_MAX: Duration = Duration::from_secs(660);

/// Counts failures in a row.
#[derive(Debug)]
pub(crate) struct Patience {
    first: Duration,
    tries: u32,
    failures: u32,
}

impl Patience {
    pub(crate) fn new(settings: &Settings) -> Self {
        Self { first: settings.pause, tries: settings.tries.max(1), failures: 0 }
    }

    /// Something has arrived: the next failure is a first one.
    pub(crate) fn succeeded(&mut self) {
        self.failures = 0;
    }

    /// Waits before the next attempt: as long as the service wants, else twice as long each time.
    ///
    /// # Errors
    /// [`Error::GaveUp`] after too many failures, [`Error::Busy`] if the service wants too long a
    /// pause.
    pub(crate) async fn wait(
        &mut self,
        url: &str,
        reason: String,
        wanted: Option<Duration>,
    ) -> Result<(), Error> {
        let url = url.split('?').next().unwrap_or(url).to_owned();
        self.failures += 1;
        if self.failures >= self.tries {
            return Err(Error::GaveUp { url, reason, tries: self.failures });
        }
        let pause = match wanted {
            Some(wanted) if wanted > WANTED_MAX => {
                return Err(Error::Busy { url, seconds: wanted.as_secs() });
            }
            Some(wanted) => wanted,
            None => self.pause(),
        };
        tokio::time::sleep(pause).await;
        Ok(())
    }

    fn pause(&self) -> Duration {
        let doubled = self.first.saturating_mul(1 << (self.failures - 1).min(16)).min(PAUSE_MAX);
        // Connections that failed together should not come back together.
        let nanos = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let jitter = nanos.map_or(0.5, |now| f64::from(now.subsec_nanos() % 1000) / 1000.0);
        doubled.mul_f64(0.75 + jitter / 2.0)
    }
}

/// The pause that a service asks for: `Retry-After` in seconds or as a date, or Hugging Face's
/// `RateLimit: "resolvers";r=0;t=42`.
pub(crate) fn wait_wanted(headers: &HeaderMap) -> Option<Duration> {
    let after = headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok());
    let after = after.and_then(|text| retry_after(text, SystemTime::now()));
    let limit = headers.get("ratelimit").and_then(|value| value.to_str().ok());
    after.max(limit.and_then(rate_limit))
}

fn retry_after(text: &str, now: SystemTime) -> Option<Duration> {
    match text.trim().parse::<u64>() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => {
            let date = httpdate::parse_http_date(text.trim()).ok()?;
            Some(date.duration_since(now).unwrap_or_default())
        }
    }
}

/// Seconds until the window ends, if nothing is left in it.
fn rate_limit(text: &str) -> Option<Duration> {
    let value = |name: &str| {
        let parts = text.split([';', ',']).filter_map(|part| part.trim().split_once('='));
        parts.filter(|(found, _)| found.trim() == name).find_map(|(_, v)| v.trim().parse().ok())
    };
    let (left, seconds): (u64, u64) = (value("r")?, value("t")?);
    (left == 0).then(|| Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_say_how_long_to_wait() {
        let wanted = |name: &'static str, value: &str| {
            wait_wanted(&[(name.parse().unwrap(), value.parse().unwrap())].into_iter().collect())
        };
        let seconds = |n| Some(Duration::from_secs(n));
        assert_eq!(wanted("retry-after", "7"), seconds(7));
        assert_eq!(wanted("ratelimit", "\"resolvers\";r=0;t=42"), seconds(42));
        assert_eq!(wanted("ratelimit", "\"resolvers\";r=3;t=42"), None);
        assert_eq!(wanted("retry-after", "soon"), None);
        assert_eq!(wanted("retry-after", "Thu, 01 Jan 1970 00:00:00 GMT"), seconds(0));
        let noon = httpdate::parse_http_date("Sun, 06 Nov 1994 12:00:00 GMT").unwrap();
        assert_eq!(retry_after("Sun, 06 Nov 1994 12:00:30 GMT", noon), seconds(30));
    }

    #[test]
    fn pauses_grow_and_end() {
        let mut settings = Settings::new("x".into());
        settings.pause = Duration::from_millis(100);
        let mut patience = Patience::new(&settings);
        let mut last = Duration::ZERO;
        for failures in 1..6 {
            patience.failures = failures;
            let pause = patience.pause();
            assert!(pause > last.mul_f64(1.1), "{pause:?} after {last:?}");
            last = pause;
        }
        patience.failures = 60;
        assert!(patience.pause() <= PAUSE_MAX.mul_f64(1.25));
    }
}
