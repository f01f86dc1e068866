//! A download that is killed at any point continues: nothing wrong is kept, and little is fetched
//! twice.

#![allow(clippy::unwrap_used)] // as in tests

mod common;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use cachalot_hub::{Hub, Library, Settings};
use common::{Fake, gguf, noise};

const CONNECTIONS: u64 = 4;
/// What a connection may fetch again.
const GRAIN: u64 = 8 << 20;
const KILLS: u64 = 50;
const SIZE: usize = 300_000_000;
/// At this rate, the last kills find most of the file there.
const RATE: u64 = 60_000_000;
/// The last line of a download that has ended well.
const DONE: &str = "the file is ";

/// The process that is killed: a download as two lines on standard input say, folder and name.
#[test]
#[ignore = "the test below starts it as a process of its own"]
fn download() {
    let mut lines = std::io::stdin().lines().map(Result::unwrap);
    let mut settings = Settings::new(lines.next().expect("a folder").into());
    settings.limit = Some(RATE);
    settings.connections = CONNECTIONS as usize;
    let hub = Hub::new(settings);
    let offer = hub.resolve(&lines.next().expect("a name").parse().unwrap()).unwrap();
    let model = hub.pull(&offer, &[], &mut |_| true).unwrap();
    println!("\n{DONE}{}", hub.library().runnable(&model).unwrap().display());
}

/// This program again, with nothing but the download.
fn start(folder: &std::path::Path, name: &str) -> Child {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "download", "--ignored", "--nocapture"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    writeln!(child.stdin.take().unwrap(), "{}\n{name}", folder.display()).unwrap();
    child
}

#[test]
fn fifty_kills_cost_no_more_than_their_grain() {
    let (fake, folder) = (Fake::start(), tempfile::tempdir().unwrap());
    let bytes = gguf(1, SIZE, None);
    let name = fake.ollama(std::slice::from_ref(&bytes));
    fake.world().held = Some(SIZE as u64 - GRAIN); // so that none ends before it is killed
    let library = Library::new(&Settings::new(folder.path().to_owned()));
    let mut random = noise(std::process::id().into(), 8 * KILLS as usize).into_iter();
    let mut kills = 0;
    let mut last = 0;
    loop {
        let mut child = start(folder.path(), &name);
        if kills == KILLS {
            fake.world().held = None;
            let out = BufReader::new(child.stdout.take().unwrap());
            let lines: Vec<String> = out.lines().map(Result::unwrap).collect();
            assert!(child.wait().unwrap().success());
            let path = lines.iter().find_map(|line| line.strip_prefix(DONE)).unwrap();
            assert!(fs::read(path).unwrap() == bytes, "the file is right");
            break;
        }
        let wait = Duration::from_micros(u64::from(random.next().unwrap()) * 600);
        let until = Instant::now() + wait;
        while Instant::now() < until && child.try_wait().unwrap().is_none() {
            std::thread::sleep(Duration::from_millis(1));
        }
        let _ = child.kill(); // SIGKILL
        let ended = child.wait().unwrap();
        assert!(!ended.success(), "it was killed before its end, or this test shows nothing");
        kills += 1;
        // What is recorded as safe never gets less.
        let done = library.list().partials.first().map_or(0, |partial| partial.done);
        assert!(done >= last, "{done} bytes were safe, {last} before");
        last = done;
        assert!(library.list().models.is_empty());
    }
    let sent = fake.world().sent;
    let headers = (KILLS + 1) * (512 << 10);
    let most = SIZE as u64 + headers + KILLS * CONNECTIONS * GRAIN;
    assert!(sent <= most, "{sent} bytes were sent, {most} at most");
    let twice = (sent.saturating_sub(SIZE as u64 + headers)) as f64 / (KILLS * CONNECTIONS) as f64;
    println!("{:.2} MiB per connection and kill were sent twice", twice / f64::from(1 << 20));
}
