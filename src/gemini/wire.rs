//! Pieces of JSON that several answers share.
