//! By the names of `std::os`.

/// By the names of `std::os::unix`.
pub mod unix {
    /// By the names of `std::os::unix::fs`.
    pub mod fs {
        use std::io;

        /// Reading and writing at a place.
        pub trait FileExt {
            /// Reads what is at `offset`; nothing behind the end.
            ///
            /// # Errors
            /// When the machine is off.
            fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;

            /// Writes all of `bytes` at `offset`.
            ///
            /// # Errors
            /// When the machine is off.
            fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
        }

        /// Which file it is, whatever its name.
        pub trait MetadataExt {
            /// The number of the disk; there is one.
            fn dev(&self) -> u64;
            /// The number of the file.
            fn ino(&self) -> u64;
        }
    }
}
