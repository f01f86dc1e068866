//! Experts that write down what they are asked for, whoever has them.

use std::fs::File;
use std::io::{self, BufWriter};

use cachalot_kernels::{Activations, Cpu};
use cachalot_store::trace::{Header, TraceWriter};

use crate::{Error, ExpertShape, Experts, Mlp, Routing};

/// [`Experts`] with a record of their routing, in the format of [`cachalot_store::trace`].
pub struct Traced {
    inner: Box<dyn Experts>,
    first: usize,
    header: Header,
    /// `None` once writing has failed: an answer is worth more than its trace.
    writer: Option<TraceWriter<BufWriter<File>>>,
    routing: Vec<u16>, // [tokens, layers, used]
}

impl Traced {
    /// Records the routing of all layers into `file`.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn new(inner: Box<dyn Experts>, shape: &ExpertShape, file: File) -> Result<Self, Error> {
        let number = |n: usize| u16::try_from(n).unwrap_or(u16::MAX);
        let header = Header {
            layers: number(shape.layers.len()),
            experts: number(shape.count),
            used: number(shape.used),
        };
        let writer = TraceWriter::new(BufWriter::new(file), header).map_err(Error::Trace)?;
        Ok(Self {
            inner,
            first: shape.layers.start,
            header,
            writer: Some(writer),
            routing: Vec::new(),
        })
    }

    /// Notes the routing of one layer; with the last one, all of the batch are written.
    fn note(&mut self, layer: usize, routing: &Routing) {
        let Header { layers, used, .. } = self.header;
        let (layers, used) = (usize::from(layers), usize::from(used));
        let (index, token_len) = (layer - self.first, layers * used);
        self.routing.resize(routing.tokens() * token_len, 0);
        for (token, row) in self.routing.chunks_exact_mut(token_len).enumerate() {
            let experts = routing.of(token).0;
            for (pick, &expert) in row[index * used..][..used].iter_mut().zip(experts) {
                *pick = expert as u16;
            }
        }
        if index + 1 == layers {
            let rows = self.routing.chunks_exact(token_len);
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
    fn request(&mut self, layer: usize, routing: &Routing) {
        self.inner.request(layer, routing);
        self.note(layer, routing);
    }

    fn apply(
        &mut self,
        cpu: &Cpu,
        layer: usize,
        x: &mut Activations,
        routing: &Routing,
        shared: Option<Mlp<'_>>,
        out: &mut [f32],
    ) -> Result<(), Error> {
        self.inner.apply(cpu, layer, x, routing, shared, out)
    }

    fn prefetch(&mut self, layer: usize, prefetches: &Routing) {
        self.inner.prefetch(layer, prefetches);
    }

    fn wants_prefetch(&self) -> bool {
        self.inner.wants_prefetch()
    }

    fn is_cache_aware(&self) -> bool {
        self.inner.is_cache_aware()
    }

    fn is_resident(&self, layer: usize, expert: usize) -> bool {
        self.inner.is_resident(layer, expert)
    }
}
