//! A model's tensors, from one file or several.
//!
//! Each part is mapped and described from its mapping, so that description and bytes come from the
//! same file; then, on request, it is read into memory.

use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cachalot_gguf::split::{self, Part, Set};
use cachalot_gguf::{Gguf, Metadata, TensorInfo};

use crate::region::Region;
use crate::{
    Bytes, Error, Ranges, ReadFile, ReadRate, Reader, StackedExperts, dense, resident, warm,
};

/// Where a model's bytes are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Placement {
    /// In the page cache, read when first touched, shared with other processes and evicted under
    /// pressure. Files must not be overwritten or truncated while they are in use: the process
    /// would compute with other weights, or end with an error.
    #[default]
    Mapped,
    /// In anonymous memory, read before [`Weights::open`] returns.
    Resident,
}

/// How a tensor is used, if experts are streamed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TensorUse {
    /// Every token reads it: it is loaded into memory.
    Loaded,
    /// Some tokens read parts of it: these are read when they are needed.
    Streamed,
    /// It is never read.
    Unused,
}

/// One tensor.
#[derive(Clone, Debug)]
pub struct Tensor {
    /// Name, type, shape and offset in its file.
    pub info: TensorInfo,
    /// Index of its file in [`Weights::files`].
    pub file: usize,
    /// Its bytes, as they are in the file; none if it is streamed or unused.
    pub bytes: Bytes,
}

/// The metadata and tensors of a model.
#[derive(Clone, Debug)]
pub struct Weights {
    metadata: Metadata,
    tensors: Vec<Tensor>,
    index: HashMap<String, usize>,
    files: Vec<PathBuf>,
    /// The mapped files, for [`Weights::warm`].
    mapped: Vec<Arc<Region>>,
    /// The open files, if experts are streamed from them.
    sources: Vec<Arc<ReadFile>>,
}

impl Weights {
    /// Opens a GGUF file, or all parts of a split one from the path of any part.
    ///
    /// Mapped, this reads the headers only.
    ///
    /// # Errors
    /// If a file is missing, unreadable or not a part of one valid model, or there is no memory.
    pub fn open(path: impl AsRef<Path>, placement: Placement) -> Result<Self, Error> {
        Self::open_with(path, placement, &mut |_, _| true)
    }

    /// As [`Weights::open`]; while files are read into memory, `progress` gets the bytes read and
    /// their total, and stops the loading by returning `false`.
    ///
    /// # Errors
    /// As [`Weights::open`], and [`Error::Stopped`].
    pub fn open_with(
        path: impl AsRef<Path>,
        placement: Placement,
        progress: &mut dyn FnMut(u64, u64) -> bool,
    ) -> Result<Self, Error> {
        let paths = split::part_paths(path.as_ref());
        let mut files = Vec::with_capacity(paths.len());
        let mut regions = Vec::with_capacity(paths.len());
        let mut described = Vec::with_capacity(paths.len());
        for path in &paths {
            let file = open_file(path, paths.len())?;
            let region = Region::map(&file, path).map_err(|e| Error::unreadable(path, e))?;
            let gguf = describe(path, &region)?;
            files.push(file);
            regions.push(Arc::new(region));
            described.push((path.clone(), gguf));
        }
        let set = Set::merge(described)?;
        if placement == Placement::Resident {
            let total = regions.iter().map(|region| region.len() as u64).sum();
            let mut before = 0;
            for ((path, file), region) in paths.iter().zip(&files).zip(&mut regions) {
                let len = region.len() as u64;
                let read = resident::read(path, file, &mut |done| progress(before + done, total))?;
                if (read.len() as u64) < len {
                    return Err(Error::Shrunk { path: path.clone() });
                }
                *region = Arc::new(read);
                before += len;
            }
        }
        let weights = Self::new(set, &regions);
        let mapped = if placement == Placement::Mapped { regions } else { Vec::new() };
        Ok(Self { mapped, ..weights })
    }

    /// Opens a model whose experts are streamed. `tensor_use` tells by their names which tensors
    /// these are; all others that are used are read into memory with `reader`, whose rate and best
    /// depth are measured meanwhile. `progress` as in [`Weights::open_with`].
    ///
    /// # Errors
    /// As [`Weights::open_with`].
    pub fn open_streamed(
        path: impl AsRef<Path>,
        reader: &mut Reader,
        tensor_use: &dyn Fn(&str) -> TensorUse,
        progress: &mut dyn FnMut(u64, u64) -> bool,
    ) -> Result<(Self, ReadRate), Error> {
        Self::open_arriving(path, None, reader, tensor_use, progress)
    }

    /// As [`Weights::open_streamed`], from files that `arriving` may still be writing. What is not
    /// streamed is there already.
    ///
    /// # Errors
    /// As [`Weights::open_with`].
    pub fn open_arriving(
        path: impl AsRef<Path>,
        arriving: Option<&Arc<dyn Ranges>>,
        reader: &mut Reader,
        tensor_use: &dyn Fn(&str) -> TensorUse,
        progress: &mut dyn FnMut(u64, u64) -> bool,
    ) -> Result<(Self, ReadRate), Error> {
        let paths = split::part_paths(path.as_ref());
        let mut described = Vec::with_capacity(paths.len());
        let mut sources = Vec::with_capacity(paths.len());
        for path in &paths {
            let file = open_file(path, paths.len())?;
            let region = Region::map(&file, path).map_err(|e| Error::unreadable(path, e))?;
            described.push((path.clone(), describe(path, &region)?));
            let source = ReadFile::open(path).map_err(|e| Error::unreadable(path, e))?;
            sources.push(Arc::new(source.written_by(arriving.cloned())));
        }
        let set = Set::merge(described)?;
        let (bytes, rate) = dense::read(&set.tensors, tensor_use, &sources, reader, progress)?;
        let tensors = set.tensors.into_iter().zip(bytes);
        let tensors = tensors
            .map(|(tensor, bytes)| Tensor { info: tensor.info, file: tensor.part, bytes })
            .collect();
        Ok((Self::of(set.metadata, set.parts, tensors, sources), rate))
    }

    /// Reads those mapped files that are not in the page cache, if all of them together have no
    /// more than `room` bytes. `progress` gets the bytes read and their total; it is never called
    /// if there is nothing to read.
    pub fn warm(&self, room: u64, progress: &mut dyn FnMut(u64, u64)) {
        let files = self.files.iter().zip(&self.mapped);
        warm::warm(files.map(|(path, region)| (path.as_path(), &**region)), room, progress);
    }

    /// The `count` equal matrices of a streamed tensor in their file.
    ///
    /// # Errors
    /// If the tensor is missing, not streamed, or does not divide.
    pub fn stacked_experts(&self, name: &str, count: usize) -> Result<StackedExperts, Error> {
        let found = self.tensor(name).and_then(|tensor| {
            let file = self.sources.get(tensor.file).filter(|_| tensor.bytes.is_empty())?;
            let TensorInfo { size, offset, .. } = tensor.info;
            let len = size.checked_div(count as u64).filter(|len| len * count as u64 == size)?;
            Some(StackedExperts { file: Arc::clone(file), offset, len: usize::try_from(len).ok()? })
        });
        found.ok_or_else(|| Error::NotStacked { tensor: name.to_owned(), count })
    }

    /// The weights of a model that is embedded in the program.
    ///
    /// # Errors
    /// If the bytes are not a valid GGUF.
    pub fn from_static(bytes: &'static [u8]) -> Result<Self, Error> {
        Self::from_region(Region::Static(bytes))
    }

    /// As [`Weights::from_static`], for bytes on the heap.
    ///
    /// # Errors
    /// If the bytes are not a valid GGUF.
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Self, Error> {
        Self::from_region(Region::Owned(bytes))
    }

    fn from_region(region: Region) -> Result<Self, Error> {
        let path = PathBuf::from("(embedded)");
        let gguf = describe(&path, &region)?;
        let set = Set::merge(vec![(path, gguf)])?;
        Ok(Self::new(set, &[Arc::new(region)]))
    }

    fn new(set: Set, regions: &[Arc<Region>]) -> Self {
        let tensors: Vec<_> = set
            .tensors
            .into_iter()
            .map(|tensor| {
                // Parsing has checked the range against the length of this very region.
                let range = tensor.info.offset as usize..tensor.info.end() as usize;
                let bytes = Bytes::new(&regions[tensor.part], range);
                Tensor { info: tensor.info, file: tensor.part, bytes }
            })
            .collect();
        Self::of(set.metadata, set.parts, tensors, Vec::new())
    }

    fn of(
        metadata: Metadata,
        parts: Vec<Part>,
        tensors: Vec<Tensor>,
        sources: Vec<Arc<ReadFile>>,
    ) -> Self {
        let index = tensors.iter().enumerate().map(|(i, t)| (t.info.name.clone(), i)).collect();
        let files = parts.into_iter().map(|part| part.path).collect();
        Self { metadata, tensors, index, files, mapped: Vec::new(), sources }
    }

    /// The key-value pairs of the file (of the first part of a split one).
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// The tensor of this name.
    pub fn tensor(&self, name: &str) -> Option<&Tensor> {
        self.index.get(name).map(|&at| &self.tensors[at])
    }

    /// All tensors, part by part in the order of the files.
    pub fn tensors(&self) -> &[Tensor] {
        &self.tensors
    }

    /// The files, in order of their parts.
    pub fn files(&self) -> &[PathBuf] {
        &self.files
    }

    /// Bytes of all tensors.
    pub fn size(&self) -> u64 {
        self.tensors.iter().map(|tensor| tensor.info.size).sum()
    }
}

fn open_file(path: &Path, parts: usize) -> Result<File, Error> {
    // Before it is opened: opening a pipe waits for a writer.
    check_regular(path)
        .and_then(|()| File::open(path).map_err(|e| Error::unreadable(path, e)))
        .map_err(|error| match error {
            Error::NotFound { path } if parts > 1 => Error::MissingPart { path, count: parts },
            error => error,
        })
}

/// Refuses folders, and pipes, sockets and devices, which have no length and may block.
pub(crate) fn check_regular(path: &Path) -> Result<(), Error> {
    cachalot_gguf::check_regular(path).map_err(|source| match source {
        cachalot_gguf::Error::Io(source) => Error::unreadable(path, source),
        _ if path.is_dir() => Error::Directory { path: path.to_owned() },
        source => Error::Gguf { path: path.to_owned(), source },
    })
}

fn describe(path: &Path, region: &Region) -> Result<Gguf, Error> {
    Gguf::parse_mapped(path, region).map_err(|source| Error::Gguf { path: path.to_owned(), source })
}
