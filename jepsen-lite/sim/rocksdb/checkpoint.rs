//! A copy of a database that shares its tables.

use std::path::Path;

use llm_config_simdisk::fs;

use crate::files::{self, Manifest};
use crate::simulated::{self, Defect};
use crate::{DB, Error};

/// Makes copies of one database.
pub struct Checkpoint<'db>(&'db DB);

impl<'db> Checkpoint<'db> {
    /// Of this database.
    ///
    /// # Errors
    /// Never, here.
    pub fn new(db: &'db DB) -> Result<Self, Error> {
        Ok(Self(db))
    }

    /// Makes a copy of what is there now in a new folder. Whoever needs it to last syncs it.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn create_checkpoint(&self, path: impl AsRef<Path>) -> Result<(), Error> {
        let (folder, manifest) = self.0.flushed()?;
        let arriving = path.as_ref().with_extension("tmp");
        fs::create_dir(&arriving)?;
        let table = files::table_name(manifest.table);
        if simulated::defect() == Some(Defect::CheckpointsLackValues) {
            self.0.write_lacking(&arriving.join(&table))?;
        } else {
            fs::hard_link(folder.join(&table), arriving.join(&table))?;
        }
        files::point(&arriving, Manifest { log: 0, ..manifest })?;
        fs::rename(&arriving, path)?;
        Ok(())
    }
}
