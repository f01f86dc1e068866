//! Experts whose routing is recorded.

use std::fs::File;
use std::io::{self, BufWriter};

use cachalot_kernels::Activations;
use cachalot_store::trace::{Header, TraceWriter};

use crate::seam::{ExpertCall, Experts, FailedRows, Residency};
use crate::{Error, ExpertShape, Routing};

/// [`Experts`] with a record of their routing, in the format of [`cachalot_store::trace`].
pub struct Traced {
    inner: Box<dyn Experts>,
    first: usize,
    header: Header,
    /// `None` once writing has failed: an answer is worth more than its trace.
    writer: Option<TraceWriter<BufWriter<File>>>,
    routed: Vec<u16>, // [rows, layers, used]
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
        let first = shape.layers.start;
        Ok(Self { inner, first, header, writer: Some(writer), routed: Vec::new() })
    }

    /// Notes the routing of one layer; with the last one, that of the batch is written. Rows that
    /// have failed are left out.
    fn note(&mut self, layer: usize, routing: &Routing) {
        let Header { layers, used, .. } = self.header;
        let (layers, used) = (usize::from(layers), usize::from(used));
        let (index, row_len) = (layer - self.first, layers * used);
        self.routed.resize(routing.rows() * row_len, 0);
        for (row, routed) in self.routed.chunks_exact_mut(row_len).enumerate() {
            let experts = routing.of(row).0;
            for (to, &expert) in routed[index * used..][..used].iter_mut().zip(experts) {
                *to = expert as u16;
            }
        }
        if index + 1 == layers {
            let rows = self.routed.chunks_exact(row_len).enumerate();
            let mut rows = rows.filter(|(row, _)| !routing.of(*row).0.is_empty());
            let mut written = |writer: &mut TraceWriter<_>| -> io::Result<()> {
                rows.try_for_each(|(_, routed)| writer.token(routed))
            };
            self.writer = self
                .writer
                .take()
                .and_then(|mut writer| written(&mut writer).is_ok().then_some(writer));
        }
    }
}

impl Experts for Traced {
    fn begin(&mut self, call: &ExpertCall<'_>, x: &Activations) -> Result<(), Error> {
        self.inner.begin(call, x)?;
        self.note(call.layer, call.routing);
        Ok(())
    }

    fn finish(
        &mut self,
        call: &ExpertCall<'_>,
        x: &mut Activations,
        out: &mut [f32],
    ) -> Result<Vec<FailedRows>, Error> {
        self.inner.finish(call, x, out)
    }

    fn includes_shared(&self) -> bool {
        self.inner.includes_shared()
    }

    fn prefetch(&mut self, layer: usize, guess: &Routing) {
        self.inner.prefetch(layer, guess);
    }

    fn residency(&self) -> Option<&dyn Residency> {
        self.inner.residency()
    }
}
