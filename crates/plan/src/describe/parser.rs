//! Lexemes become items: what each word or group of words names, resolved by what stands beside it.
//!
//! Names of several words are matched longest first. A bare number has candidate meanings (a
//! processor, a GPU, the speed of memory, a size of a product's memory, a count), and its
//! neighbours decide; where two remain, the description is refused and both are named.

use super::lexer::{COUNT_MAX, Form, Lexeme};
use super::names::{drive, is_series, is_server, is_suffix, network, product, ryzen, says_nothing};
use super::products::{PRODUCTS, Product};
use super::vocabulary::{BRANDS, DRIVES, FILLERS, MACHINES, MAKERS};
use super::{DescribeError, cloud, nearest};
use crate::machine::Gpu;
use crate::{gpus, processors};

/// Names have at most this many words: `gmktec evo-x2`, `rtx 4070 ti super`, `jetson orin nano`.
const NAME_WORDS: usize = 5;
/// Words after a maker's name that may be a product's, and mean nothing here: `Dell PowerEdge
/// R7525`.
const BRAND_WORDS: usize = 2;
/// Speeds at which memory modules run, in MT/s: JEDEC's and common overclocks. Other numbers are
/// not speeds.
const SPEEDS: &[u32] = &[
    1066, 1333, 1600, 1866, 2133, 2400, 2666, 2667, 2800, 2933, 3000, 3200, 3333, 3400, 3466, 3600,
    3733, 3800, 3866, 4000, 4133, 4200, 4224, 4266, 4267, 4400, 4533, 4600, 4800, 5200, 5400, 5500,
    5600, 5800, 6000, 6200, 6400, 6600, 6800, 7000, 7200, 7466, 7467, 7500, 7600, 7800, 8000, 8200,
    8400, 8448, 8533, 8800, 9600,
];

/// Sizes of memory modules, in GiB.
const MODULES: &[u32] = &[2, 4, 8, 16, 24, 32, 48, 64, 96, 128, 256];

/// Sizes of the memory of Macs, in GiB, that are no size of a screen.
const MAC_SIZES: &[u32] = &[8, 18, 24, 32, 36, 48, 64, 96, 128, 192, 256, 512];

/// What a size belongs to, where a word says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Ram,
    Vram,
    Drive,
}

/// A part of a machine.
#[derive(Debug, Clone)]
pub(super) enum Item {
    Product {
        count: Option<u32>,
        product: &'static Product,
    },
    /// A case that comes with several chips.
    Case {
        count: Option<u32>,
        shown: &'static str,
        chips: &'static [&'static str],
    },
    Cloud {
        count: Option<u32>,
        name: String,
        instance: cloud::Instance,
    },
    Processor {
        count: Option<u32>,
        name: String,
    },
    Card(Gpu),
    Drive {
        count: u32,
        name: String,
        rate: f64,
        is_kind: bool,
    },
    Size {
        bytes: u64,
        modules: Option<u32>,
        role: Option<Role>,
    },
    Rate(f64),
    Speed {
        channels: Option<u32>,
        mts: u32,
    },
    Ddr(u32),
    Channels(u32),
    Cores(u32),
    Sockets(u32),
    Network {
        bits_per_second: u64,
        name: String,
        latency: Option<f64>,
    },
    Role(Role),
    /// `x8`, or a count whose thing comes before it: `EPYC 9755 dual`.
    CountAfter(u32),
    /// Several whole machines: `4 nodes`.
    Machines(u32),
    /// Words between parts that say nothing.
    Filler,
}

/// Reads lexemes from left to right.
pub(super) struct Parser<'a> {
    pub(super) lexemes: &'a [Lexeme],
    pub(super) items: Vec<Item>,
}

impl Parser<'_> {
    /// All items.
    pub(super) fn parse(mut self) -> Result<Vec<Item>, DescribeError> {
        let mut at = 0;
        while at < self.lexemes.len() {
            at += self.take(at)?;
        }
        Ok(self.items)
    }

    /// Takes the item at `at`; returns the number of lexemes.
    fn take(&mut self, at: usize) -> Result<usize, DescribeError> {
        let lexeme = &self.lexemes[at];
        let number_as_count = match lexeme.form {
            Form::Number(n) if n <= COUNT_MAX => Some(n),
            _ => None,
        };
        let count = match lexeme.form {
            Form::Count(count) => Some(count),
            _ => number_as_count,
        };
        // `Xeon Gold 6338 dual 1TB`: the processor is dual.
        if matches!(lexeme.text.as_str(), "dual" | "single")
            && matches!(self.items.last(), Some(Item::Processor { .. }))
            && matches!(self.lexemes.get(at + 1).map(|next| &next.form), Some(Form::Size(_)))
        {
            self.items.push(Item::CountAfter(count.unwrap_or(1)));
            return Ok(1);
        }
        // `Razer Blade 16`: inches.
        if number_as_count.is_some_and(|number| (11..=18).contains(&number))
            && self.follows_brand(at)
        {
            self.items.push(Item::Filler);
            return Ok(1);
        }
        if number_as_count.is_some_and(|number| self.is_model_year(number)) {
            return Ok(1 + self.words_of_phone(at + 1));
        }
        let of_phone = self.words_of_phone(at);
        if of_phone > 0 {
            return Ok(of_phone);
        }
        if let Some(count) = count {
            if let Some((item, used)) = self.counted(at + 1, count)? {
                self.items.push(item);
                return Ok(1 + used);
            }
            if number_as_count.is_none() {
                self.items.push(Item::CountAfter(count));
                return Ok(1);
            }
        }
        if let Some((item, used)) = self.named(at, None)? {
            self.items.push(item);
            return Ok(used);
        }
        let item = self.alone(at)?;
        self.items.push(item);
        Ok(1)
    }

    /// What the lexeme at `at` is by itself.
    fn alone(&self, at: usize) -> Result<Item, DescribeError> {
        let lexeme = &self.lexemes[at];
        Ok(match lexeme.form {
            // `Supermicro X12`
            Form::CountAfter(_)
                if at > 0 && BRANDS.contains(&self.lexemes[at - 1].text.as_str()) =>
            {
                Item::Filler
            }
            Form::CountAfter(count) => Item::CountAfter(count),
            Form::Size(bytes) => Item::Size { bytes, modules: None, role: None },
            Form::Rate(rate) => Item::Rate(rate),
            Form::Speed(mts) => Item::Speed { channels: None, mts },
            Form::Channels(channels) => Item::Channels(channels),
            // `60-core GPU`
            Form::Cores(_) if self.lexemes.get(at + 1).is_some_and(|next| next.text == "gpu") => {
                Item::Filler
            }
            Form::Cores(cores) => Item::Cores(cores),
            Form::Sockets(sockets) => Item::Sockets(sockets),
            Form::Threads => Item::Filler,
            Form::Ddr(generation) => Item::Ddr(generation),
            Form::Network(bits_per_second) => {
                Item::Network { bits_per_second, name: lexeme.text.clone(), latency: None }
            }
            Form::Number(number) => self.number(at, number)?,
            Form::Count(_) | Form::Word => self.word(at)?,
        })
    }

    /// What a count counts, if it is what follows.
    fn counted(&self, at: usize, count: u32) -> Result<Option<(Item, usize)>, DescribeError> {
        // `4x RTX`, `2x of the ...`
        let skipped = self.lexemes[at..].iter().take_while(|next| {
            matches!(next.form, Form::Word)
                && matches!(next.text.as_str(), "of" | "the" | "used" | "old" | "cheap" | "sticks")
        });
        let skipped = skipped.count();
        let at = at + skipped;
        let Some(next) = self.lexemes.get(at) else { return Ok(None) };
        if let Some((item, used)) = custom_card(&self.lexemes[at..], Some(count)) {
            return Ok(Some((item, used + skipped)));
        }
        let item = match next.form {
            Form::Size(bytes) => {
                let bytes = bytes.saturating_mul(count.into());
                Some((Item::Size { bytes, modules: Some(count), role: None }, 1))
            }
            Form::Speed(mts) => Some((Item::Speed { channels: Some(count), mts }, 1)),
            // `DDR5-6000 2x48`
            Form::Number(gib) if MODULES.contains(&gib) && self.is_beside_memory(at) => {
                let bytes = (u64::from(gib) << 30).saturating_mul(count.into());
                Some((Item::Size { bytes, modules: Some(count), role: Some(Role::Ram) }, 1))
            }
            // Two-socket boards take no Ryzen: `2x5600` is memory.
            Form::Number(mts) if is_speed(mts) && !is_server(&next.text) => {
                Some((Item::Speed { channels: Some(count), mts }, 1))
            }
            Form::Word if MACHINES.contains(&next.text.as_str()) => {
                Some((Item::Machines(count), 1))
            }
            _ => self.named(at, Some(count))?,
        };
        Ok(item.map(|(item, used)| (item, used + skipped)))
    }

    /// Whether the kind or speed of memory stands before the count of the lexeme at `at`, or after
    /// that lexeme.
    fn is_beside_memory(&self, at: usize) -> bool {
        let before = self.items.iter().rfind(|item| !matches!(item, Item::Filler));
        matches!(before, Some(Item::Ddr(_) | Item::Speed { .. } | Item::Role(Role::Ram)))
            || matches!(
                self.lexemes.get(at + 1).map(|next| &next.form),
                Some(Form::Ddr(_) | Form::Speed(_))
            )
    }

    /// The longest name that begins at `at`.
    fn named(&self, at: usize, count: Option<u32>) -> Result<Option<(Item, usize)>, DescribeError> {
        for words in (1..=NAME_WORDS.min(self.lexemes.len() - at)).rev() {
            let name = self.phrase(at, words);
            if let Some((first, second)) = gpus::ambiguous(&name) {
                let [first, second] = [first, second].map(str::to_owned);
                return Err(DescribeError::Ambiguous { word: name, first, second });
            }
            let item = product(&name, count)
                .or_else(|| self.card(at, words, &name, count))
                .or_else(|| drive(&name, count))
                .or_else(|| network(&name));
            if let Some(item) = item {
                return Ok(Some((item, words)));
            }
        }
        if let Some(found) = custom_card(&self.lexemes[at..], count) {
            return Ok(Some(found));
        }
        self.processor(at, count)
    }

    fn phrase(&self, at: usize, words: usize) -> String {
        let texts: Vec<&str> =
            self.lexemes[at..at + words].iter().map(|lexeme| lexeme.text.as_str()).collect();
        texts.join(" ")
    }

    fn card(&self, at: usize, words: usize, name: &str, count: Option<u32>) -> Option<Item> {
        let first = &self.lexemes[at];
        // Each of these alone is a maker or a filler, not a name.
        let is_number = matches!(first.form, Form::Number(_));
        if words == 1 && is_number && is_speed_beside(&self.items, &first.text) {
            return None;
        }
        let name = name.replace('-', "");
        // `h100x8`
        let counted = name.rsplit_once('x').and_then(|(name, count)| {
            let count = count.parse().ok().filter(|count| (1..=COUNT_MAX).contains(count))?;
            Some(Gpu { count, ..gpus::by_name(name)? })
        });
        if let Some(gpu) = counted.filter(|_| count.is_none()) {
            return Some(Item::Card(gpu));
        }
        let gpu = gpus::by_name(&name)?;
        if gpu.unified {
            return None;
        }
        Some(Item::Card(Gpu { count: count.unwrap_or(1), ..gpu }))
    }

    /// A processor: makers' words and a model, or a model alone.
    fn processor(
        &self,
        at: usize,
        count: Option<u32>,
    ) -> Result<Option<(Item, usize)>, DescribeError> {
        let mut used = 0;
        let mut has_model = false;
        while let Some(lexeme) = self.lexemes.get(at + used) {
            let text = lexeme.text.as_str();
            let is_maker = MAKERS.contains(&text.trim_end_matches('+')) || is_series(text);
            let is_number = matches!(lexeme.form, Form::Number(_));
            let digits = text.chars().filter(char::is_ascii_digit).count();
            let plain_word = matches!(lexeme.form, Form::Word | Form::Number(_));
            let goes_on = if has_model {
                is_suffix(text)
            } else if used == 0 {
                is_maker || (self.bare(at).is_some())
            } else {
                is_maker || (plain_word && digits >= 1 && (!is_number || self.fits(at, used)))
            };
            if !goes_on {
                break;
            }
            // `i7-13700k`, `9354`; but the 9 of `ryzen 9` is none.
            has_model |= digits >= 3;
            used += 1;
        }
        if used == 0 {
            return Ok(None);
        }
        let name = self.phrase(at, used);
        let name = if used == 1 { processors::bare(&name).unwrap_or(name) } else { name };
        let only_makers = !has_model
            && self.lexemes[at..at + used]
                .iter()
                .all(|lexeme| MAKERS.contains(&lexeme.text.trim_end_matches('+')));
        if processors::find(&name).is_none() && processors::cores(&name).is_none() && !only_makers {
            let nearest = nearest(&name, processors::names());
            return Err(DescribeError::Word { word: name, nearest });
        }
        Ok(Some((Item::Processor { count, name }, used)))
    }

    /// Whether a number goes on a processor's name: the 9 of `Ryzen 9`, `EPYC 9354`; not a second
    /// model.
    fn fits(&self, at: usize, used: usize) -> bool {
        let name = self.phrase(at, used + 1);
        let digits = self.lexemes[at + used].text.len();
        digits <= 1 || processors::find(&name).is_some() || processors::cores(&name).is_some()
    }

    /// A model that names a processor without its maker, unless its neighbours make it a speed.
    fn bare(&self, at: usize) -> Option<String> {
        let text = &self.lexemes[at].text;
        let beside = is_speed_beside(&self.items, text);
        processors::bare(text).filter(|_| !beside)
    }

    /// A number that is not a name by itself.
    fn number(&self, at: usize, number: u32) -> Result<Item, DescribeError> {
        let text = &self.lexemes[at].text;
        let next = self.lexemes.get(at + 1);
        let before_memory =
            next.is_some_and(|next| matches!(next.form, Form::Ddr(_) | Form::Channels(_)));
        if is_speed(number) && (is_speed_beside(&self.items, text) || before_memory) {
            return Ok(Item::Speed { channels: None, mts: number });
        }
        let before = at.checked_sub(1).map(|before| self.lexemes[before].text.as_str());
        if matches!(before, Some("rtx" | "gtx" | "rx" | "quadro")) {
            // A card that is not known is none of the things that its number could also be.
            let word = format!("{} {text}", before.unwrap_or_default());
            return Err(DescribeError::Word { nearest: nearest(text, gpus::names()), word });
        }
        if self.is_model_year(number) {
            return Ok(Item::Filler);
        }
        if let Some(size) = self.product_size(number) {
            return Ok(Item::Size { bytes: size << 30, modules: None, role: None });
        }
        let processor = ryzen(text);
        if let Some(name) = processor.clone().filter(|_| self.has_other_speed(at)) {
            return Ok(Item::Processor { count: None, name });
        }
        if is_speed(number)
            && let Some(processor) = processor
        {
            return Err(DescribeError::Ambiguous {
                word: text.clone(),
                first: format!("a processor (write `{processor}`)"),
                second: format!("memory at {number} MT/s (write `{number}mts`)"),
            });
        }
        if is_speed(number)
            && !self.items.is_empty()
            && self.items.iter().all(|item| !matches!(item, Item::Speed { .. }))
        {
            return Ok(Item::Speed { channels: None, mts: number });
        }
        if self.follows_brand(at) {
            return Ok(Item::Filler);
        }
        Err(self.unknown(at))
    }

    /// `MacBook Pro 16`, `iPhone 15`, `Mac Pro 2019`: inches, a generation, a year.
    fn is_model_year(&self, number: u32) -> bool {
        let is_year = (2010..2040).contains(&number);
        match self.items.last() {
            Some(Item::Case { shown, .. }) => {
                is_year || shown.starts_with("MacBook") && matches!(number, 11..=16)
            }
            Some(Item::Product { product, .. }) => {
                is_year || product.shown == "phone" && number < 64
            }
            _ => false,
        }
    }

    /// Words that follow `iPhone 15` and name no processor: `pro max`.
    fn words_of_phone(&self, at: usize) -> usize {
        if !matches!(self.items.last(), Some(Item::Product { product, .. }) if product.shown == "phone")
        {
            return 0;
        }
        let words = ["pro", "plus", "max", "ultra", "mini"];
        self.lexemes[at..].iter().take_while(|next| words.contains(&next.text.as_str())).count()
    }

    /// Whether something else than the number at `at` is the speed of memory.
    fn has_other_speed(&self, at: usize) -> bool {
        let speed = |(index, lexeme): (usize, &Lexeme)| match lexeme.form {
            Form::Speed(_) => true,
            Form::Number(number) => {
                index != at
                    && is_speed(number)
                    && index > 0
                    && matches!(
                        self.lexemes[index - 1].form,
                        Form::Count(_) | Form::Ddr(_) | Form::Size(_)
                    )
            }
            _ => false,
        };
        self.lexemes.iter().enumerate().any(speed)
    }

    /// `M3 Ultra 512`: a size that the product is made with.
    fn product_size(&self, number: u32) -> Option<u64> {
        // `Mac Studio 256`, whose chip is asked for.
        let is_case = matches!(self.items.last(), Some(Item::Case { .. }));
        if is_case && MAC_SIZES.contains(&number) {
            return Some(number.into());
        }
        let sizes = self.items.iter().rev().find_map(|item| match item {
            Item::Product { product, .. } => Some(product.sizes),
            _ => None,
        })?;
        let drive = matches!(number, 256 | 512)
            && self.items.iter().any(|item| matches!(item, Item::Size { .. }));
        let is_size = sizes.contains(&u64::from(number));
        (is_size || drive).then_some(number.into())
    }

    fn word(&self, at: usize) -> Result<Item, DescribeError> {
        let text = self.lexemes[at].text.as_str();
        let plain = text.trim_matches(['+', '-', '.']);
        Ok(match plain {
            "ram" | "memory" | "dram" | "rdimm" | "rdimms" | "udimm" | "dimm" | "dimms"
            | "unified" => Item::Role(Role::Ram),
            "vram" => Item::Role(Role::Vram),
            "gpu" | "graphics" | "card" if self.follows_size() => Item::Role(Role::Vram),
            "storage" => Item::Role(Role::Drive),
            _ if says_nothing(plain) => Item::Filler,
            _ if plain.is_empty() || FILLERS.contains(&plain) || BRANDS.contains(&plain) => {
                Item::Filler
            }
            _ if self.follows_brand(at) => Item::Filler,
            _ => return Err(self.unknown(at)),
        })
    }

    /// `24 GB GPU`; but not `RAM: 128 GB, GPU: ...`.
    fn follows_size(&self) -> bool {
        let mut before = self.items.iter().rev().filter(|item| !matches!(item, Item::Filler));
        matches!(before.next(), Some(Item::Size { role: None, .. }))
            && (!matches!(before.next(), Some(Item::Role(_)))
                || matches!(before.next(), Some(Item::Size { .. })))
    }

    /// Whether a maker's name stands a word or two before.
    fn follows_brand(&self, at: usize) -> bool {
        let before = &self.lexemes[at.saturating_sub(BRAND_WORDS)..at];
        before.iter().any(|lexeme| BRANDS.contains(&lexeme.text.as_str()))
    }

    fn unknown(&self, at: usize) -> DescribeError {
        let word = self.lexemes[at].text.clone();
        let drives = DRIVES.iter().map(|(name, _)| *name);
        let products = PRODUCTS.iter().flat_map(|product| product.names.iter().copied());
        let makers = MAKERS.iter().copied();
        let names = processors::names().chain(gpus::names()).chain(drives).chain(products);
        let names = names.chain(makers);
        DescribeError::Word { nearest: nearest(&word, names), word }
    }
}

/// `24GB` `1008GB/s`, written with a colon between.
fn custom_card(lexemes: &[Lexeme], count: Option<u32>) -> Option<(Item, usize)> {
    let [first, second, ..] = lexemes else { return None };
    let (Form::Size(memory_bytes), Form::Rate(rate)) = (&first.form, &second.form) else {
        return None;
    };
    if !second.text.starts_with(':') {
        return None;
    }
    let name = format!("{} card", first.text.to_uppercase());
    let (count, bytes_per_second) = (count.unwrap_or(1), Some(*rate));
    let gpu = Gpu { name, count, memory_bytes: *memory_bytes, bytes_per_second, ..Gpu::default() };
    Some((Item::Card(gpu), 2))
}

/// Whether memory modules run at this speed.
pub(super) fn is_speed(number: u32) -> bool {
    SPEEDS.contains(&number)
}

/// Whether a number of this text is a speed because of what came before it: modules, a size,
/// `DDR5`, channels.
fn is_speed_beside(items: &[Item], text: &str) -> bool {
    let is_memory = matches!(
        items.iter().rfind(|item| !matches!(item, Item::Filler)),
        Some(
            Item::Size { role: None | Some(Role::Ram), .. }
                | Item::Ddr(_)
                | Item::Channels(_)
                | Item::Role(Role::Ram)
        )
    );
    is_memory && text.parse().is_ok_and(is_speed)
}
