//! What the program does, by what it is asked for.

mod changes;
mod contexts;
mod editing;
mod looking;
mod operations;
