//! Streaming where the system refuses what makes it fast: `io_uring` (as containers do by default),
//! reads past the page cache (as some file systems do), memory that stays (where `ulimit -l` is
//! low). The kernel itself refuses, by a filter on the calls of one thread and those that it
//! starts.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]
#![allow(clippy::unwrap_used)] // helpers of tests are tests

mod common;

use std::collections::BTreeMap;

use cachalot_gguf::KvType;
use cachalot_kernels::Tier;
use cachalot_model::{Config, Model, ModelOptions, Streamed};
use cachalot_store::{CacheOptions, Placement, ReadRate, Reader, Weights};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch, apply_filter,
};

const FILE: &str = "nano-ud-iq1_s.gguf";

/// A system call, of x86-64, and the error that it is made to end with; always, or if an argument
/// has a bit.
#[derive(Clone, Copy)]
struct Refusal {
    call: i64,
    error: u32,
    bit: Option<(u8, u64)>,
}

/// What Docker's default profile does.
const IO_URING_SETUP: Refusal = Refusal { call: 425, error: 1, bit: None };
/// `openat` with `O_DIRECT`, as on file systems without it.
const DIRECT: Refusal = Refusal { call: 257, error: 22, bit: Some((2, 0o40_000)) };
/// `mlock2` beyond `RLIMIT_MEMLOCK`.
const LOCK: Refusal = Refusal { call: 325, error: 12, bit: None };

/// From now on, the kernel refuses this to the present thread and those that it starts.
fn refuse(Refusal { call, error, bit }: Refusal) {
    let rule = |(argument, bit)| {
        let operation = SeccompCmpOp::MaskedEq(bit);
        let condition =
            SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operation, bit).unwrap();
        SeccompRule::new(vec![condition]).unwrap()
    };
    let rules = BTreeMap::from([(call, bit.map(rule).into_iter().collect())]);
    let (allow, refuse) = (SeccompAction::Allow, SeccompAction::Errno(error));
    let filter = SeccompFilter::new(rules, allow, refuse, TargetArch::x86_64).unwrap();
    let program: BpfProgram = filter.try_into().unwrap();
    apply_filter(&program).unwrap();
}

/// Logits of a streamed model for a prompt and some tokens, how it was read, and whether its memory
/// is locked.
fn run() -> (Vec<f32>, ReadRate, bool) {
    let options = ModelOptions::default();
    let mut reader = Reader::start().unwrap();
    let path = common::fixture(FILE);
    let config = Config::of(&Weights::open(&path, Placement::Mapped).unwrap(), &options).unwrap();
    let tensor_use = |name: &str| config.tensor_use(name);
    let opened = Weights::open_streamed(path, &mut reader, &tensor_use, &mut |_, _| true);
    let (weights, rate) = opened.unwrap();
    let experts = config.experts.clone().unwrap();
    let cache = CacheOptions::new(200 << 10, config.dense_layers, experts.count, experts.used);
    let cpu = common::cpu(2, Tier::detect());
    let experts = Streamed::bind(&weights, &cpu, &config.expert_shape(), reader, &cache).unwrap();
    let is_locked = experts.is_locked();
    let mut model = Model::load_with_experts(&weights, &cpu, &options, Box::new(experts)).unwrap();
    let mut sequence = common::Sequence::new(&mut model, 64, KvType::F16);
    let mut logits = sequence.prefill(&mut model, &[5, 66, 127, 188, 249]);
    for token in [310, 371, 432] {
        logits.extend(sequence.decode(&mut model, &[token]));
    }
    (logits, rate, is_locked)
}

#[test]
fn whatever_the_system_refuses_the_logits_are_the_same() {
    let (expected, ..) = run();
    let refused = |refusals: &'static [Refusal]| {
        let thread = std::thread::spawn(move || {
            refusals.iter().copied().for_each(refuse);
            run()
        });
        thread.join().unwrap()
    };
    let (logits, rate, _) = refused(&[IO_URING_SETUP]);
    assert_eq!(rate.reader, "pread", "threads read where there is no ring");
    assert!(logits == expected);
    let (logits, rate, _) = refused(&[DIRECT]);
    assert!(!rate.direct, "through the page cache");
    assert!(logits == expected);
    let (logits, _, is_locked) = refused(&[LOCK]);
    assert!(!is_locked, "it may be swapped out");
    assert!(logits == expected);
    let (logits, rate, is_locked) = refused(&[IO_URING_SETUP, DIRECT, LOCK]);
    assert_eq!((rate.reader, rate.direct, is_locked), ("pread", false, false));
    assert!(logits == expected);
}
