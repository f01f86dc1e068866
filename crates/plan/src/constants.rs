//! The constants that are fitted to published measurements, each with what was believed before.
//!
//! A constant belongs to a class of hardware, never to a machine. `tests/measurements.rs` finds
//! them: the values that explain most rows while staying near the prior, which comes from data
//! sheets, from what memory benchmarks reach and from other models, never from the rows. The same
//! procedure without the rows of one machine gives the constants by which that machine is predicted
//! in the published table of errors. Where no other machine says anything, the prior remains.

macro_rules! constants {
    ($(
        $(#[$doc:meta])*
        $name:ident: $prior:literal within $factor:literal fitted $fitted:literal,
    )*) => {
        /// Fitted constants; rates in units per second.
        #[derive(Debug, Clone, Copy, PartialEq)]
        pub struct Constants { $($(#[$doc])* pub $name: f64,)* }

        impl Constants {
            /// As fitted to all rows.
            pub const FITTED: Self = Self { $($name: $fitted,)* };
            /// Without any row.
            pub const PRIOR: Self = Self { $($name: $prior,)* };
            /// Names, and the factor within which the prior is believed to be true.
            pub const NAMES: &[(&str, f64)] = &[$((stringify!($name), $factor),)*];

            /// All values, in the order of [`Constants::NAMES`].
            pub fn values(&self) -> Vec<f64> {
                vec![$(self.$name),*]
            }

            /// The same backwards.
            ///
            /// # Panics
            /// If there are fewer values than names.
            pub fn of(values: &[f64]) -> Self {
                let mut values = values.iter().copied();
                Self { $($name: values.next().expect("a value for each name"),)* }
            }
        }
    };
}

constants! {
    /// Of the bandwidth that channels and speed promise, what decoding reaches: processor alone.
    share_processor: 0.6 within 1.3 fitted 0.595,
    /// The same with at most two channels, which a few fast cores keep busy.
    share_desktop: 0.7 within 1.2 fitted 0.774,
    /// The same where only routed experts are read, in turns with a graphics card.
    share_hybrid: 0.55 within 1.3 fitted 0.502,
    /// Of a bandwidth that somebody measured with another program, or of what chiplets let through.
    share_reported: 0.85 within 1.2 fitted 0.978,
    /// Of a card's bandwidth by data sheet, where it works in turns with others.
    share_vram: 0.7 within 1.25 fitted 0.668,
    /// The same of routed experts, which are many small products.
    share_vram_routed: 0.5 within 1.3 fitted 0.456,
    /// The same of memory that processor and graphics share.
    share_unified: 0.6 within 1.3 fitted 0.559,
    /// Of a drive's rate past the page cache, by programs that let the kernel page.
    share_paged: 0.5 within 1.4 fitted 0.411,
    /// Bandwidth of two sockets over which the weights are spread, as a multiple of one socket's,
    /// if each has more than the links between them carry.
    sockets_spread: 1.0 within 1.4 fitted 0.645,
    /// The same where the links keep up.
    sockets_slow: 1.7 within 1.3 fitted 1.72,
    /// The same where each socket reads its own memory: copies of the weights, or slices.
    sockets_own: 1.6 within 1.3 fitted 2.14,
    /// Seconds that a layer costs besides its bytes: joining threads and handing over, on
    /// processors.
    layer_processor: 200e-6 within 1.6 fitted 0.000375,
    /// The same with the processor waiting for a card twice per layer.
    layer_hybrid: 150e-6 within 1.6 fitted 0.000166,
    /// The same for kernels launched on one card.
    layer_cards: 60e-6 within 1.6 fitted 7.36e-5,
    /// The same for kernels launched by software that waits for the card in each layer.
    layer_cards_early: 800e-6 within 2.0 fitted 0.00118,
    /// The same with two sums over all cards of a machine with links made for it.
    layer_joined: 250e-6 within 1.6 fitted 0.000237,
    /// The same over PCIe.
    layer_pcie: 250e-6 within 1.6 fitted 0.000288,
    /// Operations of attention in decoding, per core: 128-bit vectors.
    attention_neon: 15e9 within 2.0 fitted 1.5e10,
    /// The same with 256-bit vectors.
    attention_avx2: 20e9 within 1.6 fitted 1.69e10,
    /// The same with 512-bit vectors.
    attention_avx512: 60e9 within 1.6 fitted 6e10,
    /// The same with 256-bit vectors and dot products of bytes.
    attention_avx_vnni: 50e9 within 1.6 fitted 5e10,
    /// The same with 512-bit vectors and dot products of bytes.
    attention_avx512_vnni: 100e9 within 1.6 fitted 1.02e11,
    /// The most of all cores.
    attention_max: 4e12 within 1.5 fitted 4.55e12,
    /// Of a card: operations for each byte of its bandwidth.
    attention_card: 25.0 within 2.0 fitted 17.0,
    /// Products of weights in prompts, per core: 128-bit vectors.
    products_neon: 20e9 within 2.0 fitted 3.36e10,
    /// The same with 256-bit vectors.
    products_avx2: 25e9 within 1.6 fitted 2.02e10,
    /// The same with 512-bit vectors.
    products_avx512: 40e9 within 1.6 fitted 4e10,
    /// The same with 256-bit vectors and dot products of bytes.
    products_avx_vnni: 40e9 within 1.6 fitted 4e10,
    /// The same with 512-bit vectors and dot products of bytes.
    products_avx512_vnni: 80e9 within 1.6 fitted 1.13e11,
    /// The most of all cores.
    products_max: 4e12 within 1.6 fitted 3.67e12,
    /// Bytes of experts that a core unpacks in a codebook format.
    codebook: 1.2e9 within 2.0 fitted 1.6e9,
    /// The same in a trellis format.
    trellis: 2.5e9 within 2.0 fitted 3.56e9,
    /// The most of all cores, in either.
    unpacked_max: 150e9 within 1.6 fitted 9.95e10,
    /// Bytes per second over PCIe of experts that are sent to a card for prompts.
    pcie: 20e9 within 1.5 fitted 2.21e10,
    /// Products in prompts for each byte of a card's bandwidth.
    products_card: 25.0 within 2.0 fitted 14.4,
    /// The same of chips whose GPU shares the main memory.
    products_unified: 8.0 within 2.0 fitted 7.73,
    /// The same of cards that share the work of each layer.
    products_joined: 5.0 within 2.0 fitted 3.78,
    /// How much faster attention is for a prompt, which has many tokens at once, than in decoding.
    prompt_attention: 2.0 within 1.6 fitted 1.82,
    /// The same on graphics cards.
    prompt_attention_card: 5.0 within 2.0 fitted 10.5,
    /// Seconds that machines take, besides the network, to agree on a sum.
    network_sync: 100e-6 within 2.0 fitted 0.000171,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_in_the_order_of_the_names() {
        let values = Constants::FITTED.values();
        assert_eq!(values.len(), Constants::NAMES.len());
        assert_eq!(Constants::of(&values), Constants::FITTED);
    }
}
