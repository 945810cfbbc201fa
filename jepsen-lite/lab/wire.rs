//! A cable that delays, overtakes and doubles: between two network devices that this process makes, frames wait in a
//! queue. All that chance decides comes from a seed.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io::{ErrorKind, Read as _, Write as _};
use std::iter::Sum;
use std::os::fd::AsFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::OFlags;
use rustix::ioctl::{self, Updater, opcode};

/// `TUNSETIFF`.
const SET_INTERFACE: ioctl::Opcode = opcode::write::<i32>(b'T', 202);
/// `IFF_TAP | IFF_NO_PI`: whole frames, and nothing in front of them.
const TAP: i16 = 0x0002 | 0x1000;
/// Longer than a frame may be.
const FRAME_BYTES: usize = 4096;
/// Frames that may wait in one direction; a cable with more on it loses them.
const WAITING_MAX: usize = 20_000;
/// Frames that are taken from a device in a row.
const AT_ONCE: usize = 64;
/// How often the wire looks whether it is wanted any more.
const LOOK: Duration = Duration::from_millis(20);

/// What a wire does to frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Weather {
    /// How many of a hundred frames wait.
    pub percent: u32,
    /// How long one waits, at least.
    pub delay: Duration,
    /// And how much longer, at most.
    pub jitter: Duration,
    /// How many of a hundred frames come twice.
    pub doubled: u32,
}

/// What a wire did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Frames that waited.
    pub delayed: u64,
    /// Frames that were overtaken.
    pub overtaken: u64,
    /// Frames that came twice.
    pub doubled: u64,
}

impl Sum for Counts {
    fn sum<I: Iterator<Item = Self>>(counts: I) -> Self {
        counts.fold(Self::default(), |sum, more| Self {
            delayed: sum.delayed + more.delayed,
            overtaken: sum.overtaken + more.overtaken,
            doubled: sum.doubled + more.doubled,
        })
    }
}

/// One direction.
#[derive(Debug)]
struct Line {
    weather: Weather,
    chance: StdRng,
    waiting: BinaryHeap<Reverse<(Instant, u64, Vec<u8>)>>,
    came: u64,
    gone: u64,
    counts: Counts,
}

impl Line {
    fn new(weather: Weather, seed: u64) -> Self {
        let chance = StdRng::seed_from_u64(seed);
        let waiting = BinaryHeap::new();
        Self { weather, chance, waiting, came: 0, gone: 0, counts: Counts::default() }
    }

    fn take(&mut self, frame: &[u8], now: Instant) {
        let copies = if self.dice(self.weather.doubled) { 2 } else { 1 };
        self.counts.doubled += copies - 1;
        for _ in 0..copies {
            let mut due = now;
            if self.dice(self.weather.percent) {
                let jitter = self.weather.jitter.as_micros().try_into().unwrap_or(u64::MAX);
                due += self.weather.delay
                    + Duration::from_micros(self.chance.random_range(0..=jitter));
                self.counts.delayed += 1;
            }
            self.came += 1;
            if self.waiting.len() < WAITING_MAX {
                self.waiting.push(Reverse((due, self.came, frame.to_vec())));
            }
        }
    }

    fn dice(&mut self, percent: u32) -> bool {
        self.chance.random_range(0..100) < percent
    }

    /// The next frame whose time has come.
    fn give(&mut self, now: Instant) -> Option<Vec<u8>> {
        if self.waiting.peek().is_none_or(|Reverse((due, ..))| *due > now) {
            return None;
        }
        let Reverse((_, number, frame)) = self.waiting.pop()?;
        self.counts.overtaken += u64::from(number < self.gone);
        self.gone = self.gone.max(number);
        Some(frame)
    }

    fn due(&self) -> Option<Instant> {
        self.waiting.peek().map(|Reverse((due, ..))| *due)
    }
}

/// A wire at work; give it to [`Wire::end`].
#[derive(Debug)]
pub struct Wire {
    stop: Arc<AtomicBool>,
    counts: Arc<Mutex<Counts>>,
    thread: JoinHandle<anyhow::Result<()>>,
}

impl Wire {
    /// Carries frames between two devices.
    #[must_use]
    pub fn begin(ends: [File; 2], weather: Weather, seed: u64) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let lines = [Line::new(weather, seed), Line::new(weather, seed.wrapping_add(1))];
        let counts = Arc::new(Mutex::new(Counts::default()));
        let counted = counts.clone();
        let thread = thread::spawn(move || carry(&ends, lines, &stopped, &counted));
        Self { stop, counts, thread }
    }

    /// What it has done so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        *self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends it, and with it its devices; what is still on the way is lost.
    ///
    /// # Errors
    /// When it had ended by itself.
    pub fn end(self) -> anyhow::Result<Counts> {
        self.stop.store(true, Ordering::Relaxed);
        let counts = self.counts.clone();
        let Ok(ended) = self.thread.join() else { bail!("a wire panicked") };
        ended?;
        Ok(*counts.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn carry(
    ends: &[File; 2],
    mut lines: [Line; 2],
    stop: &AtomicBool,
    counts: &Mutex<Counts>,
) -> anyhow::Result<()> {
    let mut frame = vec![0; FRAME_BYTES];
    while !stop.load(Ordering::Relaxed) {
        let next = lines.iter().filter_map(Line::due).min();
        let wait = next.map_or(LOOK, |due| due.saturating_duration_since(Instant::now()).min(LOOK));
        let wait = Timespec::try_from(wait).context("a wait out of range")?;
        let mut polled =
            ends.each_ref().map(|end| PollFd::from_borrowed_fd(end.as_fd(), PollFlags::IN));
        match rustix::event::poll(&mut polled, Some(&wait)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error).context("cannot wait for frames"),
        }
        for (from, line) in lines.iter_mut().enumerate() {
            for _ in 0..AT_ONCE {
                match (&ends[from]).read(&mut frame) {
                    Ok(size) => line.take(&frame[..size], Instant::now()),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(error) => return Err(error).context("cannot take a frame"),
                }
            }
            while let Some(frame) = line.give(Instant::now()) {
                // A device that takes no more, or that is not up yet, loses it, as a cable does.
                let _ = (&ends[1 - from]).write(&frame);
            }
        }
        *counts.lock().unwrap_or_else(PoisonError::into_inner) =
            lines.iter().map(|line| line.counts).sum();
    }
    Ok(())
}

/// As the kernel wants it: the name of a device, and what it is to be.
#[repr(C)]
struct Interface {
    name: [u8; 16],
    flags: i16,
    rest: [u8; 22],
}

/// Makes a device in the namespace of the calling thread; it lives as long as the file is open.
///
/// # Errors
/// When the kernel does not let it.
pub fn device(name: &str) -> anyhow::Result<File> {
    let mut interface = Interface { name: [0; 16], flags: TAP, rest: [0; 22] };
    ensure!(name.len() < interface.name.len(), "{name} is too long for a device");
    interface.name[..name.len()].copy_from_slice(name.as_bytes());
    let nonblocking = i32::try_from(OFlags::NONBLOCK.bits())?;
    let file = File::options()
        .read(true)
        .write(true)
        .custom_flags(nonblocking)
        .open("/dev/net/tun")
        .context("cannot open /dev/net/tun")?;
    // SAFETY: the kernel reads and writes one `ifreq` for this code, and `Interface` is laid out as one.
    #[expect(unsafe_code, reason = "rustix has no call of its own for this")]
    let made =
        unsafe { ioctl::ioctl(&file, Updater::<SET_INTERFACE, Interface>::new(&mut interface)) };
    made.context("cannot make a network device")?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WEATHER: Weather = Weather {
        percent: 50,
        delay: Duration::from_millis(5),
        jitter: Duration::from_millis(50),
        doubled: 20,
    };

    fn through(seed: u64) -> (Vec<u8>, Counts) {
        let (mut line, start) = (Line::new(WEATHER, seed), Instant::now());
        for number in 0..100 {
            line.take(&[number], start + Duration::from_millis(u64::from(number)));
        }
        let late = start + Duration::from_secs(1);
        let mut out = Vec::new();
        assert!(line.give(start).is_none_or(|frame| frame == [0]), "nothing comes too early");
        while let Some(frame) = line.give(late) {
            out.extend(frame);
        }
        (out, line.counts)
    }

    #[test]
    fn chance_is_the_seeds() {
        assert_eq!(through(1), through(1));
        assert_ne!(through(1).0, through(2).0);
    }

    #[test]
    fn what_is_counted_happened() {
        let (out, counts) = through(3);
        let late = out.iter().scan(0, |most, number| {
            let late = number < most;
            *most = (*most).max(*number);
            Some(u64::from(late))
        });
        assert!(late.sum::<u64>() > 0 && counts.overtaken > 0, "{counts:?}");
        assert!(counts.delayed > 0 && counts.doubled > 0, "{counts:?}");
        for number in 0..100 {
            assert!(out.contains(&number), "{number} is lost");
        }
    }

    #[test]
    fn a_full_line_loses_what_comes() {
        let weather = Weather { percent: 100, doubled: 0, ..WEATHER };
        let (mut line, start) = (Line::new(weather, 1), Instant::now());
        (0..WAITING_MAX + 10).for_each(|_| line.take(b"x", start));
        assert_eq!(line.waiting.len(), WAITING_MAX);
    }
}
