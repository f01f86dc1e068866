//! Names of models to verified files: Ollama's registry, Hugging Face and the local library.
#![forbid(unsafe_code)]
