//! Experts that write down what they are asked for, whoever has them.

use std::fs::File;
use std::io::{self, BufWriter};

use cachalot_kernels::{Cpu, Inputs};
use cachalot_store::trace::{Header, TraceWriter};

use crate::{Config, Error, Experts, Mlp, Picks};

/// [`Experts`] with a record of their picks, in the format of [`cachalot_store::trace`].
pub struct Traced {
    inner: Box<dyn Experts>,
    first: usize,
    header: Header,
    /// `None` once writing has failed: an answer is worth more than its trace.
    writer: Option<TraceWriter<BufWriter<File>>>,
    picks: Vec<u16>, // [tokens, layers, used]
}

impl Traced {
    /// Records the picks of all layers into `file`.
    ///
    /// # Errors
    /// If the model has no experts, or the file cannot be written.
    pub fn new(inner: Box<dyn Experts>, config: &Config, file: File) -> Result<Self, Error> {
        let experts = config.experts.as_ref().ok_or(Error::NoExperts)?;
        let number = |n: usize| u16::try_from(n).unwrap_or(u16::MAX);
        let header = Header {
            layers: number(config.layers - config.dense_layers),
            experts: number(experts.count),
            used: number(experts.used),
        };
        let writer = TraceWriter::new(BufWriter::new(file), header).map_err(Error::Trace)?;
        Ok(Self {
            inner,
            first: config.dense_layers,
            header,
            writer: Some(writer),
            picks: Vec::new(),
        })
    }

    /// Notes the picks of one layer; with the last one, all of the batch are written.
    fn note(&mut self, layer: usize, picks: &Picks) {
        let Header { layers, used, .. } = self.header;
        let (layers, used) = (usize::from(layers), usize::from(used));
        let (index, token_len) = (layer - self.first, layers * used);
        self.picks.resize(picks.tokens() * token_len, 0);
        for (token, row) in self.picks.chunks_exact_mut(token_len).enumerate() {
            let experts = picks.of(token).0;
            for (pick, &expert) in row[index * used..][..used].iter_mut().zip(experts) {
                *pick = expert as u16;
            }
        }
        if index + 1 == layers {
            let rows = self.picks.chunks_exact(token_len);
            let written = |writer: &mut TraceWriter<_>| -> io::Result<()> {
                rows.into_iter().try_for_each(|row| writer.token(row))
            };
            self.writer = self
                .writer
                .take()
                .and_then(|mut writer| written(&mut writer).is_ok().then_some(writer));
        }
    }
}

impl Experts for Traced {
    fn request(&mut self, layer: usize, picks: &Picks) {
        self.inner.request(layer, picks);
        self.note(layer, picks);
    }

    fn apply(
        &mut self,
        cpu: &Cpu,
        layer: usize,
        x: &mut Inputs,
        picks: &Picks,
        shared: Option<Mlp<'_>>,
        out: &mut [f32],
    ) -> Result<(), Error> {
        self.inner.apply(cpu, layer, x, picks, shared, out)
    }

    fn hint(&mut self, layer: usize, guesses: &Picks) {
        self.inner.hint(layer, guesses);
    }

    fn wants_hints(&self) -> bool {
        self.inner.wants_hints()
    }

    fn wants_preference(&self) -> bool {
        self.inner.wants_preference()
    }

    fn is_at_hand(&self, layer: usize, expert: usize) -> bool {
        self.inner.is_at_hand(layer, expert)
    }
}
