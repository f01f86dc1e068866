//! Every way of reading gives the same bytes; every way of failing gives an error and the slot
//! back.

use std::fs::{self, File};
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

const STALL_TIMEOUT: Duration = Duration::from_secs(30);

fn numbered(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 31 % 251) as u8).collect()
}

/// A folder that is kept while its file is in use, and the file.
fn file(bytes: &[u8]) -> (tempfile::TempDir, std::path::PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    fs::write(&path, bytes).unwrap();
    File::open(&path).unwrap().sync_all().unwrap();
    (folder, path)
}

/// All readers that this system allows.
fn readers() -> Vec<Reader> {
    let read: ReadFunction = Arc::new(pool::pread);
    let pool = Reader::pool(3, "pread", &read).unwrap();
    #[cfg(target_os = "linux")]
    return Reader::uring().into_iter().chain([pool]).collect();
    #[cfg(not(target_os = "linux"))]
    return vec![pool];
}

fn read(tag: u64, file: &Arc<ReadFile>, offset: u64, len: usize) -> Read {
    Read::covering(tag, file, offset, len, Slot::new(Read::slot_bytes(len)).unwrap())
}

fn next(reader: &mut Reader) -> Done {
    reader.next(STALL_TIMEOUT).unwrap().expect("something lands")
}

#[test]
fn all_readers_give_the_same_bytes_directly_and_not() {
    let bytes = numbered(3 * 1024 * 1024 + 1234);
    let (_folder, path) = file(&bytes);
    let ranges: Vec<(u64, usize)> = (0..200)
        .map(|i| (i * 15_737, 1 + (i as usize * 7919) % 70_000))
        .map(|(at, len)| (at, len.min(bytes.len() - at as usize)))
        .chain([(bytes.len() as u64 - 1, 1), (0, bytes.len())])
        .collect();
    for mut reader in readers() {
        for open in [ReadFile::open, ReadFile::open_buffered] {
            let file = Arc::new(open(&path).unwrap());
            for (tag, &(offset, len)) in ranges.iter().enumerate() {
                reader.submit(Priority::Demand, read(tag as u64, &file, offset, len));
            }
            for _ in &ranges {
                let done = next(&mut reader);
                done.result.unwrap();
                let (offset, len) = ranges[done.read.tag as usize];
                let found = &done.read.slot[skipped(offset)..][..len];
                assert!(found == &bytes[offset as usize..][..len], "{} {offset}", reader.name());
            }
            assert_eq!(reader.in_flight(), 0);
        }
    }
}

#[test]
fn a_file_that_ends_early_is_an_error_and_the_reader_goes_on() {
    let (_folder, path) = file(&numbered(100_000));
    for mut reader in readers() {
        let open = Arc::new(ReadFile::open(&path).unwrap());
        let tags = [(90_000, 20_000), (98_304, 1697), (200_000, 10), (0, 50)];
        for (tag, (offset, len)) in tags.into_iter().enumerate() {
            reader.submit(Priority::Demand, read(tag as u64, &open, offset, len));
        }
        let mut failed = [true; 4];
        for _ in 0..4 {
            let done = next(&mut reader);
            failed[done.read.tag as usize] = match done.result {
                Ok(()) => false,
                Err(error) => {
                    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
                    assert!(error.to_string().contains("truncated"), "{error}");
                    true
                }
            };
        }
        assert_eq!(failed, [true, true, true, false], "{}", reader.name());
    }
}

#[test]
fn short_and_interrupted_reads_go_on() {
    let bytes = numbered(50_000);
    let (_folder, path) = file(&bytes);
    let calls = AtomicUsize::new(0);
    let short = move |file: &File, out: &mut [u8], offset: u64| match calls
        .fetch_add(1, Ordering::Relaxed)
        % 3
    {
        0 => Err(io::ErrorKind::Interrupted.into()),
        1 => pool::pread(file, &mut out[..4096 + 99], offset),
        _ => pool::pread(file, out, offset),
    };
    let short: ReadFunction = Arc::new(short);
    let mut reader = Reader::pool(1, "short", &short).unwrap();
    let file = Arc::new(ReadFile::open_buffered(&path).unwrap());
    reader.submit(Priority::Demand, read(0, &file, 5, 49_000));
    let done = next(&mut reader);
    done.result.unwrap();
    assert!(done.read.slot[5..49_005] == bytes[5..49_005]);
}

#[test]
fn nothing_comes_of_nothing_and_patience_ends() {
    for mut reader in readers() {
        assert!(reader.next(Duration::from_millis(1)).unwrap().is_none());
    }
}

#[test]
fn a_dropped_reader_ends_with_reads_in_flight() {
    let (_folder, path) = file(&numbered(1 << 20));
    let open = Arc::new(ReadFile::open(&path).unwrap());
    for mut reader in readers() {
        (0..50).for_each(|tag| reader.submit(Priority::Demand, read(tag, &open, 0, 1 << 20)));
        drop(reader);
    }
    // Its threads let go of the file when the last read has ended; no timing is asserted, but a
    // thread that never ended would hang the test.
    while Arc::strong_count(&open) > 1 {
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_file_that_is_written_to_is_noticed() {
    let (_folder, path) = file(&numbered(10_000));
    let open = ReadFile::open(&path).unwrap();
    open.check_unchanged(|| "it".to_owned()).unwrap();
    let other = path.with_extension("new");
    fs::write(&other, b"new").unwrap();
    fs::rename(&other, &path).unwrap();
    open.check_unchanged(|| "it".to_owned()).expect("a replaced file is still the old one");
    let open = ReadFile::open(&path).unwrap();
    File::options().write(true).open(&path).unwrap().set_len(1).unwrap();
    let error = open.check_unchanged(|| "it".to_owned()).unwrap_err().to_string();
    assert!(error.contains("changed since"), "{error}");
}

#[test]
#[cfg(target_os = "linux")]
fn memory_file_systems_are_read_as_well() {
    let Ok(folder) = tempfile::tempdir_in("/dev/shm") else { return };
    let path = folder.path().join("file");
    let bytes = numbered(20_000);
    fs::write(&path, &bytes).unwrap();
    let open = Arc::new(ReadFile::open(&path).unwrap());
    for mut reader in readers() {
        reader.submit(Priority::Demand, read(0, &open, 5000, 14_000));
        let done = next(&mut reader);
        done.result.unwrap();
        assert!(done.read.slot[skipped(5000)..][..14_000] == bytes[5000..19_000]);
    }
}
