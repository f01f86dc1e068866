//! Tensors by name, their shapes and formats checked once, so that the forward pass need not.

use cachalot_gguf::{TensorInfo, TensorType};
use cachalot_kernels::{Format, Matrix};
use cachalot_store::{Bytes, StackedExperts, Tensor, Weights};

use crate::Error;

/// The tensors of a file, as one architecture expects them.
#[derive(Clone, Copy)]
pub(crate) struct Binder<'a> {
    weights: &'a Weights,
}

/// A matrix whose bytes fit its shape; one or many of equal shape, one after the other.
#[derive(Clone, Debug)]
pub(crate) struct Weight {
    format: Format,
    rows: usize, // of each of the matrices
    cols: usize,
    count: usize,
    bytes: Bytes,
    scales: Vec<f32>, // none, or one for all, or one for each
}

/// Matrices of equal shape whose bytes are elsewhere until they are needed.
#[derive(Clone, Debug)]
pub(crate) struct StreamedMatrix {
    format: Format,
    rows: usize,
    cols: usize,
    scales: Vec<f32>, // as in `Weight`
}

impl<'a> Binder<'a> {
    pub(crate) fn new(weights: &'a Weights) -> Self {
        Self { weights }
    }

    /// Whether the file has this tensor.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.weights.tensor(name).is_some()
    }

    /// The matrix `name` of `rows` x `cols`.
    pub(crate) fn matrix(&self, name: &str, rows: usize, cols: usize) -> Result<Weight, Error> {
        self.stack(name, 1, rows, cols)
    }

    /// `count` matrices of `rows` x `cols`, stored in one tensor. How many dimensions that has does
    /// not matter: the same bytes are found as `[cols, rows, count]` and as `[cols, rows · count]`.
    pub(crate) fn stack(
        &self,
        name: &str,
        count: usize,
        rows: usize,
        cols: usize,
    ) -> Result<Weight, Error> {
        self.bind(name, (count, rows, cols), 1)
    }

    /// As [`Binder::stack`]; each of the matrices may have a scale of its own.
    pub(crate) fn experts(
        &self,
        name: &str,
        count: usize,
        rows: usize,
        cols: usize,
    ) -> Result<Weight, Error> {
        self.bind(name, (count, rows, cols), count)
    }

    /// As [`Binder::experts`], of weights that are streamed: what they are, and where they lie.
    pub(crate) fn streamed_experts(
        &self,
        name: &str,
        count: usize,
        rows: usize,
        cols: usize,
    ) -> Result<(StreamedMatrix, StackedExperts), Error> {
        let (_, format) = self.checked(name, (count, rows, cols))?;
        let matrix = |source| Error::Matrix { tensor: name.to_owned(), source };
        let bytes = format.row_bytes(cols).unwrap_or(0).saturating_mul(rows);
        let stack = self.weights.stacked_experts(name, count)?;
        if bytes != stack.slice_bytes() {
            let found = stack.slice_bytes();
            let error =
                cachalot_kernels::Error::Bytes { format, rows, cols, expected: bytes, found };
            return Err(matrix(error));
        }
        Ok((StreamedMatrix { format, rows, cols, scales: self.scales(name, count)? }, stack))
    }

    fn bind(
        &self,
        name: &str,
        (count, rows, cols): (usize, usize, usize),
        scales_max: usize,
    ) -> Result<Weight, Error> {
        let (tensor, format) = self.checked(name, (count, rows, cols))?;
        let scales = self.scales(name, scales_max)?;
        Weight::new(format, (count, rows, cols), tensor.bytes.clone(), scales)
            .map_err(|source| Error::Matrix { tensor: name.to_owned(), source })
    }

    /// A tensor of this shape, and its format.
    fn checked(
        &self,
        name: &str,
        (count, rows, cols): (usize, usize, usize),
    ) -> Result<(&'a Tensor, Format), Error> {
        let tensor = self.tensor(name)?;
        let info = &tensor.info;
        if info.cols() != cols as u64 || info.rows() != (rows * count) as u64 {
            let mut expected = vec![cols as u64, rows as u64];
            expected.extend((count > 1).then_some(count as u64));
            return Err(shape(tensor, expected));
        }
        Ok((tensor, format(tensor)?))
    }

    /// The vector `name` of `len` numbers, decoded.
    pub(crate) fn vector(&self, name: &str, len: usize) -> Result<Vec<f32>, Error> {
        let tensor = self.tensor(name)?;
        if tensor.info.elements() != len as u64 {
            return Err(shape(tensor, vec![len as u64]));
        }
        let mut vector = vec![0.0; len];
        format(tensor)?.decode(&tensor.bytes, &mut vector);
        Ok(vector)
    }

    /// Columns and rows of a tensor whose shape says something that no key does.
    pub(crate) fn shape(&self, name: &str) -> Result<(usize, usize), Error> {
        let info = &self.tensor(name)?.info;
        Ok((info.cols() as usize, info.rows() as usize))
    }

    fn tensor(&self, name: &str) -> Result<&'a Tensor, Error> {
        let missing = || Error::MissingTensor {
            tensor: name.to_owned(),
            arch: self.weights.metadata().arch().unwrap_or_default().to_owned(),
        };
        self.weights.tensor(name).ok_or_else(missing)
    }

    /// NVFP4 tensors come with a factor for the whole, or one for each expert.
    fn scales(&self, name: &str, max: usize) -> Result<Vec<f32>, Error> {
        let stem = name.strip_suffix(".weight").unwrap_or(name);
        let names = [format!("{stem}.scale"), format!("{name}.scale")];
        let Some(name) = names.iter().find(|name| self.has(name)) else { return Ok(Vec::new()) };
        let one = self.tensor(name)?.info.elements() == 1;
        self.vector(name, if one { 1 } else { max })
    }
}

fn shape(tensor: &Tensor, expected: Vec<u64>) -> Error {
    let found = tensor.info.shape.clone();
    Error::Shape { tensor: tensor.info.name.clone(), expected, found }
}

fn format(tensor: &Tensor) -> Result<Format, Error> {
    format_of(&tensor.info)
}

/// The format of a tensor, if there are kernels for it.
pub(crate) fn format_of(tensor: &TensorInfo) -> Result<Format, Error> {
    let ty: TensorType = tensor.ty;
    Format::from_id(ty.id()).ok_or_else(|| Error::Format {
        tensor: tensor.name.clone(),
        found: ty.name(),
        advice: if ty.is_ik_only() {
            "only ik_llama.cpp knows this form; get the model in another quantization"
        } else {
            "get the model in another quantization"
        },
    })
}

impl Weight {
    /// `count` matrices of `rows` x `cols`; `scales` as the field says.
    pub(crate) fn new(
        format: Format,
        (count, rows, cols): (usize, usize, usize),
        bytes: Bytes,
        scales: Vec<f32>,
    ) -> Result<Self, cachalot_kernels::Error> {
        Matrix::new(format, rows * count, cols, &bytes)?;
        Ok(Self { format, rows, cols, count, bytes, scales })
    }

    /// The matrix; of several, all as one.
    ///
    /// # Panics
    /// If each of several has a scale of its own.
    pub(crate) fn matrix(&self) -> Matrix<'_> {
        assert!(self.scales.len() <= 1, "one scale for the whole");
        self.view().scaled(self.scales.first().copied().unwrap_or(1.0))
    }

    /// Matrix `index` of several.
    ///
    /// # Panics
    /// If there are fewer.
    pub(crate) fn get(&self, index: usize) -> Matrix<'_> {
        self.view().slice(index * self.rows, self.rows).scaled(scale(&self.scales, index))
    }

    fn view(&self) -> Matrix<'_> {
        Matrix::new(self.format, self.rows * self.count, self.cols, &self.bytes)
            .unwrap_or_else(|error| unreachable!("checked when it was bound: {error}"))
    }

    /// Rows of each matrix.
    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// Columns of each matrix.
    pub(crate) fn cols(&self) -> usize {
        self.cols
    }
}

impl StreamedMatrix {
    /// Matrix `index`, an expert's, whose bytes these are.
    ///
    /// # Panics
    /// If they are not as many as it has.
    pub(crate) fn matrix<'a>(&self, index: usize, bytes: &'a [u8]) -> Matrix<'a> {
        Matrix::new(self.format, self.rows, self.cols, bytes)
            .unwrap_or_else(|error| unreachable!("checked when it was bound: {error}"))
            .scaled(scale(&self.scales, index))
    }
}

/// The scale of matrix `index`: there may be none, or one for all.
fn scale(scales: &[f32], index: usize) -> f32 {
    match *scales {
        [] => 1.0,
        [one] => one,
        ref each => each[index],
    }
}
