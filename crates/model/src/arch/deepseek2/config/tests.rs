//! Keys of the family's members.
