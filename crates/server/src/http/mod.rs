//! HTTP without any dialect: connections, bodies, who may ask, and what is written down about it.

pub(crate) mod auth;
pub(crate) mod body;
pub(crate) mod connection;
pub(crate) mod errors;
pub(crate) mod log;
pub(crate) mod origin;
pub(crate) mod page;
pub(crate) mod tls;
