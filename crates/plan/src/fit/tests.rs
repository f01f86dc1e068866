//! Placement: what goes where as memory grows, and that nothing is placed where there is no room.

use proptest::prelude::*;

use super::*;
use crate::buffers::Widths;
use crate::model::UnpackCost;

const GIB: u64 = 1 << 30;

/// R1 UD-Q2_K_XL: 211 GiB.
fn r1() -> ModelFacts {
    ModelFacts {
        name: "R1".to_owned(),
        size: 211 * GIB,
        routed: 201 * GIB,
        routed_per_token: 201 * GIB / 32,
        dense: 10 * GIB,
        dense_per_token: 9 * GIB,
        routed_formats: Vec::new(),
        dense_formats: Vec::new(),
        routed_products: 20_435_000_000,
        dense_products: 15_000_000_000,
        layers: 61,
        moe_layers: 58,
        experts: 256,
        experts_used: 8,
        heads: 128,
        hidden: 7168,
        widths: Widths {
            nope: 128,
            rope: 64,
            value: 128,
            latent: 512,
            q_rank: 1536,
            dense: 18_432,
            expert: 2048,
            shared: 2048,
            vocabulary: 129_280,
        },
        context: 163_840,
        cache_f32: 140_544,
        cache_f16: 70_272,
        cache_q8_0: 37_332,
        cache_expanded: 4_997_120,
        attention_flops: 17e6,
        decoding: UnpackCost::Plain,
    }
}

fn ram(gib: u64) -> MemoryBudget {
    MemoryBudget { ram: gib * GIB, drive: true, ..MemoryBudget::default() }
}

#[test]
fn a_roomy_machine_holds_everything() {
    let fit = fit(&r1(), ram(256), Constraints::default()).unwrap();
    assert_eq!((fit.mode, fit.dense_in), (Mode::Resident, MemoryTier::Ram));
    assert_eq!((fit.routed_ram, fit.routed_disk), (201 * GIB, 0));
    assert_eq!((fit.context, fit.cache_type), (32_768, KvType::F16));
    assert!(fit.context_reduced, "the model has 163,840");
}

#[test]
fn fewer_bits_of_keys_and_values_come_before_a_shorter_context_and_both_before_the_drive() {
    let model = r1();
    let size = BatchSize {
        micro_batch: MICRO_BATCH_MIN,
        parallel: 1,
        context: CONTEXT_DEFAULT_MAX,
        threads: 0,
        reproducible: false,
    };
    let least = model.buffers(size);
    let at = |extra: u64| {
        let ram = model.size + least + extra;
        let fit = fit(
            &model,
            MemoryBudget { ram, drive: true, ..MemoryBudget::default() },
            Constraints::default(),
        )
        .unwrap();
        (matches!(fit.mode, Mode::Resident), fit.context, fit.cache_type)
    };
    assert_eq!(at(70_272 * 32_768), (true, 32_768, KvType::F16));
    assert_eq!(at(70_272 * 32_768 - 1), (true, 32_768, KvType::Q8_0));
    assert_eq!(at(37_332 * 32_768 - 1), (true, 32_512, KvType::Q8_0), "the most that fits");
    assert_eq!(at(37_332 * 8192), (true, 8192, KvType::Q8_0));
    assert_eq!(at(0), (false, 32_768, KvType::F16), "a little streaming, a whole context");
}

#[test]
fn what_memory_does_not_hold_is_streamed() {
    let fit = fit(&r1(), ram(96), Constraints::default()).unwrap();
    let Mode::Streamed { cache } = fit.mode else { panic!("{fit:?}") };
    assert_eq!(fit.ram, 96 * GIB);
    assert_eq!(cache, 96 * GIB - 10 * GIB - fit.kv - fit.buffers);
    assert_eq!(fit.routed_disk, 201 * GIB - cache);
}

#[test]
fn a_small_machine_gets_a_shorter_context_for_its_experts() {
    let fit = fit(&r1(), ram(17), Constraints::default()).unwrap();
    assert!(fit.context < 32_768 && fit.context >= CONTEXT_STREAMED_MIN, "{fit:?}");
    let error = super::fit(&r1(), ram(8), Constraints::default()).unwrap_err();
    assert!(error.missing().unwrap() > 2 * GIB, "{error}");
    assert!(error.to_string().contains("10.0 GiB of non-expert weights"), "{error}");
    let nothing = MemoryBudget { drive: false, ..ram(96) };
    let error = super::fit(&r1(), nothing, Constraints::default()).unwrap_err().to_string();
    assert!(error.contains("no drive"), "{error}");
}

#[test]
fn a_card_takes_what_every_token_reads_then_experts() {
    let with = |vram| {
        fit(&r1(), MemoryBudget { vram: vram * GIB, ..ram(256) }, Constraints::default()).unwrap()
    };
    assert_eq!((with(8).dense_in, with(8).vram), (MemoryTier::Ram, 0), "too small for attention");
    assert_eq!(with(24).dense_in, MemoryTier::Vram);
    assert_eq!(with(24).vram, 24 * GIB);
    let all = with(640);
    assert_eq!((all.routed_vram, all.ram), (201 * GIB, 0));
}

#[test]
fn wishes_are_kept_or_refused() {
    let constraints = |context, stream| Constraints { context, stream, ..Constraints::default() };
    let all = fit(&r1(), ram(256), constraints(Some(163_840), Stream::Auto)).unwrap();
    assert_eq!((all.context, all.context_reduced), (163_840, false));
    let asked = fit(&r1(), ram(256), constraints(None, Stream::Always)).unwrap();
    assert_eq!(asked.mode, Mode::Streamed { cache: 201 * GIB });
    let paged = fit(&r1(), ram(24), constraints(None, Stream::Never)).unwrap();
    assert_eq!((paged.mode, paged.context), (Mode::Resident, 32_768));
    let error = fit(&r1(), ram(256), constraints(Some(200_000), Stream::Auto)).unwrap_err();
    assert!(matches!(error, PlacementError::Context { most: 163_840, .. }), "{error}");
    let error = fit(&r1(), ram(15), constraints(Some(163_840), Stream::Auto)).unwrap_err();
    let PlacementError::ContextMemory { possible, .. } = error else { panic!("{error}") };
    assert!(fit(&r1(), ram(15), constraints(Some(possible), Stream::Auto)).is_ok());
    assert!(fit(&r1(), ram(15), constraints(Some(possible + 1), Stream::Auto)).is_err());
}

#[test]
fn micro_batches_grow_into_memory_that_nobody_needs() {
    let batch = |gib| fit(&r1(), ram(gib), Constraints::default()).unwrap().micro_batch;
    assert_eq!(batch(300), MICRO_BATCH_MAX);
    assert_eq!(batch(96), MICRO_BATCH_MAX, "an eighth of 84 GiB is enough");
    assert!((MICRO_BATCH_MIN..MICRO_BATCH_MAX).contains(&batch(17)));
}

#[test]
fn an_error_says_what_was_asked_for_and_what_is_kept_back() {
    let error = fit(&r1(), MemoryBudget::limited(90 << 20), Constraints::default());
    let error = error.unwrap_err().to_string();
    for part in ["90.0 MiB asked for", "45.0 MiB are reserved for the program", "vocabulary"] {
        assert!(error.contains(part), "{part}: {error}");
    }
    let error = fit(&r1(), MemoryBudget::free(8 * GIB), Constraints::default());
    let error = error.unwrap_err().to_string();
    assert!(error.contains("of 8.0 GiB available, 512.0 MiB are left"), "{error}");
}

#[test]
fn headroom_is_a_share_within_limits() {
    assert_eq!(headroom(2200 << 20), 256 << 20);
    assert_eq!(headroom(256 << 20), 32 << 20, "a small container");
    assert_eq!(headroom(96 * GIB), 6 * GIB);
    assert_eq!(headroom(2048 * GIB), 8 * GIB);
    assert_eq!(headroom(0), 0);
}

proptest! {
    #[test]
    fn nothing_is_placed_where_there_is_no_room(
        ram in 0..400 * GIB, vram in 0..300 * GIB, drive: bool,
        context in proptest::option::of(1_u64..200_000),
        always: bool,
    ) {
        let model = r1();
        let budget = MemoryBudget { ram, vram, drive, ..MemoryBudget::default() };
        let stream = if always { Stream::Always } else { Stream::Auto };
        match fit(&model, budget, Constraints { context, stream, ..Constraints::default() }) {
            Ok(fit) => {
                if context.is_none() && fit.context < CONTEXT_DEFAULT_MAX {
                    // The default context is the longest that fits.
                    let more = Some(fit.context + CONTEXT_STEP + 1);
                    let cache_type = Some(fit.cache_type);
                    let constraints =
                        Constraints { context: more, stream, cache_type, ..Constraints::default() };
                    let longer = super::fit(&model, budget, constraints);
                    // A requested one may leave fewer experts in memory than a token reads.
                    let is_cached = |fit: &Placement| {
                        fit.routed_vram + fit.routed_ram >= model.routed_per_token
                    };
                    let differs = |longer: Placement| {
                        longer.mode != fit.mode || is_cached(&fit) && !is_cached(&longer)
                    };
                    prop_assert!(longer.map_or(true, differs), "{fit:?}");
                }
                prop_assert!(fit.ram <= ram && fit.vram <= vram, "{fit:?}");
                prop_assert_eq!(fit.routed_vram + fit.routed_ram + fit.routed_disk, model.routed);
                prop_assert!(drive || matches!(fit.mode, Mode::Resident));
                prop_assert!(fit.context <= model.context);
            }
            Err(error) => prop_assert!(!error.to_string().is_empty()),
        }
    }
}
