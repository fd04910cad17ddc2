//! Instruction sets that kernels are compiled for, chosen at run time.

use std::fmt;
use std::str::FromStr;

use super::amx;
use crate::{Error, Result};

/// A level of the processor's vector instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Isa {
    /// What the target guarantees.
    Portable,
    /// AVX2 with FMA and F16C.
    Avx2,
    /// AVX-512 F, BW, CD, DQ and VL.
    Avx512,
    /// AVX-512 with products of bfloat16 pairs.
    Avx512Bf16,
    /// The same, with AMX for products of bfloat16 matrices.
    Amx,
    /// Arm's Advanced SIMD with FMA.
    Neon,
}

impl Isa {
    /// Every level, from the plainest on.
    pub const ALL: [Isa; 6] =
        [Isa::Portable, Isa::Neon, Isa::Avx2, Isa::Avx512, Isa::Avx512Bf16, Isa::Amx];

    /// The best level that this processor has.
    pub fn detect() -> Self {
        let best = Isa::ALL.into_iter().rev().find(|isa| isa.is_available());
        best.unwrap_or(Isa::Portable)
    }

    /// The levels that this processor has, from the plainest on.
    pub fn available() -> impl Iterator<Item = Isa> {
        Isa::ALL.into_iter().filter(|isa| isa.is_available())
    }

    /// Whether this processor has the level.
    pub fn is_available(self) -> bool {
        match self {
            Isa::Portable => true,
            Isa::Neon => cfg!(target_arch = "aarch64"),
            Isa::Avx2 => has_avx2(),
            Isa::Avx512 => has_avx512(),
            Isa::Avx512Bf16 => has_avx512_bf16(),
            Isa::Amx => has_avx512_bf16() && amx::is_available(),
        }
    }

    /// Whether vectors of bfloat16 pairs are multiplied.
    pub(crate) fn multiplies_pairs(self) -> bool {
        matches!(self, Isa::Avx512Bf16 | Isa::Amx)
    }

    /// The level itself, or an error that names what the processor has instead.
    pub fn require(self) -> Result<Self> {
        if self.is_available() {
            return Ok(self);
        }
        let best = Isa::detect();
        Err(Error::Device {
            device: "cpu",
            message: format!("this processor has no `{self}`; its best level is `{best}`"),
        })
    }

    /// The name in recipes and reports.
    pub fn name(self) -> &'static str {
        match self {
            Isa::Portable => "portable",
            Isa::Avx2 => "avx2",
            Isa::Avx512 => "avx512",
            Isa::Avx512Bf16 => "avx512bf16",
            Isa::Amx => "amx",
            Isa::Neon => "neon",
        }
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Isa {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        Isa::ALL.into_iter().find(|isa| isa.name() == name).ok_or_else(|| Error::Device {
            device: "cpu",
            message: format!("`{name}` is none of {}", Isa::ALL.map(Isa::name).join(", ")),
        })
    }
}

#[cfg(target_arch = "x86_64")]
fn has_avx2() -> bool {
    is_x86_feature_detected!("avx2")
        && is_x86_feature_detected!("fma")
        && is_x86_feature_detected!("f16c")
}

#[cfg(target_arch = "x86_64")]
fn has_avx512() -> bool {
    has_avx2()
        && is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512cd")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl")
}

#[cfg(target_arch = "x86_64")]
fn has_avx512_bf16() -> bool {
    has_avx512() && is_x86_feature_detected!("avx512bf16")
}

#[cfg(not(target_arch = "x86_64"))]
fn has_avx2() -> bool {
    false
}

#[cfg(not(target_arch = "x86_64"))]
fn has_avx512() -> bool {
    false
}

#[cfg(not(target_arch = "x86_64"))]
fn has_avx512_bf16() -> bool {
    false
}

/// Defines `fn name(isa, arguments)` that runs the `#[inline(always)]` function
/// `body` compiled for the instructions of `isa`, which the processor must have.
///
/// `versions! { pub(crate) fn scale(x: &mut [f32], by: f32) = scale_body; }`. Lifetimes of
/// the arguments are elided; generic parameters are given as `fn name<T: Operand>(...)`.
macro_rules! versions {
    ($(#[$meta:meta])* $vis:vis fn $name:ident $(<$($generic:ident: $bound:path),+>)?
     ($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? = $body:path;) => {
        $(#[$meta])*
        #[allow(clippy::too_many_arguments)]
        $vis fn $name $(<$($generic: $bound),+>)? (isa: $crate::cpu::Isa, $($arg: $ty),*) $(-> $ret)? {
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma,f16c")]
            #[allow(clippy::too_many_arguments)]
            fn avx2 $(<$($generic: $bound),+>)? ($($arg: $ty),*) $(-> $ret)? {
                $body($($arg),*)
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx512bw,avx512cd,avx512dq,avx512vl,avx2,fma,f16c")]
            #[allow(clippy::too_many_arguments)]
            fn avx512 $(<$($generic: $bound),+>)? ($($arg: $ty),*) $(-> $ret)? {
                $body($($arg),*)
            }
            match isa {
                // SAFETY: `isa` is a level that this processor has (`Isa::require`).
                #[cfg(target_arch = "x86_64")]
                $crate::cpu::Isa::Avx512 | $crate::cpu::Isa::Avx512Bf16 | $crate::cpu::Isa::Amx => unsafe {
                    avx512($($arg),*)
                },
                // SAFETY: as above.
                #[cfg(target_arch = "x86_64")]
                $crate::cpu::Isa::Avx2 => unsafe { avx2($($arg),*) },
                _ => $body($($arg),*),
            }
        }
    };
}
pub(crate) use versions;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_go_both_ways() {
        for isa in Isa::ALL {
            assert_eq!(isa.name().parse::<Isa>().unwrap(), isa);
        }
        assert!("sse9".parse::<Isa>().unwrap_err().to_string().contains("`sse9` is none of"));
    }

    #[test]
    fn the_best_level_is_available() {
        assert!(Isa::detect().require().is_ok());
        assert!(Isa::available().any(|isa| isa == Isa::Portable));
        let missing = if cfg!(target_arch = "aarch64") { Isa::Avx2 } else { Isa::Neon };
        assert!(missing.require().unwrap_err().to_string().contains("its best level is"));
    }
}
