//! HTTP APIs of OpenAI, Anthropic, Ollama and llama-server over the engine's handle.
#![forbid(unsafe_code)]
