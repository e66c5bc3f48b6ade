//! Counters, in Prometheus' text format.

use std::collections::BTreeMap;
use std::fmt::{Display, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Upper bounds of the buckets of request durations, in seconds.
const BUCKETS: [f64; 8] = [0.01, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0];

/// Values that are measured when the text is written.
pub(crate) struct Gauges {
    pub waiting: usize,
    pub running: bool,
    pub capacity: usize,
    pub connections: usize,
}

/// Counters since the start of the server.
#[derive(Default)]
pub(crate) struct Metrics {
    requests: Mutex<BTreeMap<(String, u16), u64>>,
    durations: Timer,
    waits: Timer,
    calls: Timer,
    prompt_tokens: AtomicU64,
    tokens: AtomicU64,
    drawn: AtomicU64,
    embedded: AtomicU64,
    abandoned: AtomicU64,
    failed: AtomicU64,
}

/// A histogram of durations.
#[derive(Default)]
struct Timer {
    micros: AtomicU64,
    count: AtomicU64,
    buckets: [AtomicU64; BUCKETS.len()],
}

impl Timer {
    fn add(&self, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        add(&self.micros, micros);
        add(&self.count, 1);
        let within = BUCKETS.iter().zip(&self.buckets);
        for (_, bucket) in within.filter(|(bound, _)| time.as_secs_f64() <= **bound) {
            add(bucket, 1);
        }
    }

    fn seconds(&self) -> f64 {
        get(&self.micros) as f64 / 1e6
    }
}

fn add(counter: &AtomicU64, number: u64) {
    counter.fetch_add(number, Ordering::Relaxed);
}

fn get(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

impl Metrics {
    /// A request to `route` was answered. There are few routes: paths that are none have one name together.
    pub fn request(&self, route: &str, status: u16, time: Duration) {
        let mut requests = { self.requests.lock() }.unwrap_or_else(PoisonError::into_inner);
        *requests.entry((route.to_owned(), status)).or_default() += 1;
        self.durations.add(time);
    }

    /// A call has left the queue for the engine.
    pub fn waited(&self, time: Duration) {
        self.waits.add(time);
    }

    /// The engine has ended a call.
    pub fn ran(&self, time: Duration) {
        self.calls.add(time);
    }

    /// Text was generated.
    pub fn tokens(&self, prompt: usize, generated: usize) {
        add(&self.prompt_tokens, prompt as u64);
        add(&self.tokens, generated as u64);
    }

    /// A picture was drawn.
    pub fn drew(&self) {
        add(&self.drawn, 1);
    }

    /// Pictures were embedded.
    pub fn embedded(&self, pictures: usize) {
        add(&self.embedded, pictures as u64);
    }

    /// A client left before its call had ended.
    pub fn abandoned(&self) {
        add(&self.abandoned, 1);
    }

    /// The engine failed.
    pub fn engine_failed(&self) {
        add(&self.failed, 1);
    }

    /// Mean duration of a call in seconds; 1 if there was none.
    pub fn mean_call(&self) -> f64 {
        match get(&self.calls.count) {
            0 => 1.0,
            count => self.calls.seconds() / count as f64,
        }
    }

    /// The text of `/metrics`.
    pub fn text(&self, gauges: &Gauges) -> String {
        let mut text = Text::default();
        text.head("emu_http_requests_total", "counter", "Requests answered.");
        {
            let requests = { self.requests.lock() }.unwrap_or_else(PoisonError::into_inner);
            for ((route, status), count) in requests.iter() {
                let labels = format!("{{path=\"{route}\",status=\"{status}\"}}");
                text.value("emu_http_requests_total", &labels, count);
            }
        }
        let timers = [
            (
                "emu_http_request_seconds",
                "Time to the head of the response.",
                &self.durations,
            ),
            ("emu_queue_wait_seconds", "Time in the queue.", &self.waits),
            ("emu_call_seconds", "Time on the engine.", &self.calls),
        ];
        for (name, help, timer) in timers {
            text.histogram(name, help, timer);
        }
        text.head("emu_tokens_total", "counter", "Tokens read and generated.");
        for (kind, counter) in [
            ("prompt", &self.prompt_tokens),
            ("completion", &self.tokens),
        ] {
            let labels = format!("{{kind=\"{kind}\"}}");
            text.value("emu_tokens_total", &labels, get(counter));
        }
        let counters = [
            ("emu_pictures_drawn_total", "Pictures drawn.", &self.drawn),
            (
                "emu_pictures_embedded_total",
                "Pictures embedded.",
                &self.embedded,
            ),
            (
                "emu_calls_abandoned_total",
                "Calls whose client left before their end.",
                &self.abandoned,
            ),
            (
                "emu_engine_failures_total",
                "Calls that failed in the engine.",
                &self.failed,
            ),
        ];
        for (name, help, counter) in counters {
            text.head(name, "counter", help);
            text.value(name, "", get(counter));
        }
        let gauges = [
            ("emu_queue_length", "Calls that wait.", gauges.waiting),
            (
                "emu_queue_capacity",
                "Calls that may wait.",
                gauges.capacity,
            ),
            (
                "emu_running",
                "Calls on the engine.",
                usize::from(gauges.running),
            ),
            ("emu_connections", "Open connections.", gauges.connections),
        ];
        for (name, help, value) in gauges {
            text.head(name, "gauge", help);
            text.value(name, "", value);
        }
        text.0
    }
}

#[derive(Default)]
struct Text(String);

impl Text {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn value(&mut self, name: &str, labels: &str, value: impl Display) {
        let _ = writeln!(self.0, "{name}{labels} {value}");
    }

    fn histogram(&mut self, name: &str, help: &str, timer: &Timer) {
        self.head(name, "histogram", help);
        let bucket = format!("{name}_bucket");
        for (bound, count) in BUCKETS.iter().zip(&timer.buckets) {
            self.value(&bucket, &format!("{{le=\"{bound}\"}}"), get(count));
        }
        let count = get(&timer.count);
        self.value(&bucket, "{le=\"+Inf\"}", count);
        self.value(&format!("{name}_sum"), "", timer.seconds());
        self.value(&format!("{name}_count"), "", count);
    }
}

/// Seconds since 1970.
pub(crate) fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_is_in_prometheus_format() {
        let metrics = Metrics::default();
        metrics.request("/health", 200, Duration::from_millis(50));
        metrics.request("/health", 200, Duration::from_secs(2));
        metrics.request("other", 404, Duration::from_secs(1000));
        metrics.tokens(10, 3);
        let text = metrics.text(&Gauges {
            waiting: 2,
            running: true,
            capacity: 64,
            connections: 5,
        });
        for line in [
            "emu_http_requests_total{path=\"/health\",status=\"200\"} 2",
            "emu_http_requests_total{path=\"other\",status=\"404\"} 1",
            "emu_http_request_seconds_bucket{le=\"0.1\"} 1",
            "emu_http_request_seconds_bucket{le=\"5\"} 2",
            "emu_http_request_seconds_bucket{le=\"+Inf\"} 3",
            "emu_http_request_seconds_count 3",
            "emu_tokens_total{kind=\"prompt\"} 10",
            "emu_queue_length 2",
            "emu_running 1",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
        }
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let value = line.rsplit(' ').next().unwrap_or_default();
            assert!(value.parse::<f64>().is_ok(), "{line}");
        }
    }
}
