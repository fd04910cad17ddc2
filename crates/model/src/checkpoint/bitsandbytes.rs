//! Linear layers as bitsandbytes saves them.
//!
//! A 4-bit `X.weight` has its codes under its own name and `.absmax`, `.quant_map`, `.nested_absmax`,
//! `.nested_quant_map` and `.quant_state.bitsandbytes__nf4` (or `fp4`), JSON in bytes, beside it; an 8-bit one
//! its magnitudes under `X.SCB`. What a folder leaves in 16 bits has none of these.

use std::path::Path;

use compute::quantize::BlockAbsmax;
use compute::{QuantizedValues, Storage};
use safetensors::Dtype;
use serde_json::Value;

use super::not_finite;
use super::safetensors::{FilePart, Folder};
use crate::{Error, Result};

/// Codes of a matrix and what they stand for.
pub struct Codes<'a>(Kind<'a>);

enum Kind<'a> {
    FourBit {
        /// `nf4` or `fp4`.
        name: &'static str,
        codes: &'a [u8],
        map: [f32; 16],
        block_len: usize,
        absmax: BlockAbsmax,
    },
    EightBit {
        codes: &'a [u8],
        absmax: Vec<f32>,
    },
}

impl Codes<'_> {
    /// A short word for how they are stored.
    pub fn name(&self) -> &'static str {
        match self.0 {
            Kind::FourBit { name, .. } => name,
            Kind::EightBit { .. } => "int8",
        }
    }

    /// The codes as they lie in the file.
    pub(super) fn bytes(&self) -> &[u8] {
        match &self.0 {
            Kind::FourBit { codes, .. } | Kind::EightBit { codes, .. } => codes,
        }
    }

    /// The numbers.
    pub fn values(&self) -> QuantizedValues<'_> {
        match &self.0 {
            Kind::FourBit { codes, map, block_len, absmax, .. } => QuantizedValues::FourBit {
                codes,
                map,
                block_len: *block_len,
                absmax: absmax.values(),
            },
            Kind::EightBit { codes, absmax } => {
                QuantizedValues::EightBit { codes: compute::weight::signed(codes), absmax }
            }
        }
    }
}

/// The tensor of this name where it is quantised, with the shape that it stands for.
pub(super) fn read<'a>(
    folder: &'a Folder,
    name: &str,
    tensor: &FilePart<'a>,
) -> Result<Option<(Vec<usize>, Codes<'a>)>> {
    let reader = Reader { folder, name, path: tensor.path };
    let (shape, kind) = if let Some((name, state)) = reader.state() {
        // Any type may hold the codes (`bnb_4bit_quant_storage`): it is the bytes that count.
        reader.four_bit(name, &state, tensor.bytes)?
    } else if tensor.dtype == Dtype::I8 {
        (tensor.shape.to_vec(), reader.eight_bit(tensor.bytes)?)
    } else if tensor.dtype == Dtype::U8 {
        return Err(reader.refused("has 8-bit codes without a `quant_state`"));
    } else {
        return Ok(None);
    };
    let [rows, cols] = shape[..] else {
        return Err(reader.refused(&format!("has shape {shape:?}, which is not a matrix")));
    };
    let codes = Codes(kind);
    codes.values().check(rows, cols).map_err(|error| match error {
        compute::Error::NotFinite { row, .. } => not_finite(tensor.path, name, row),
        error => reader.error(&error.to_string()),
    })?;
    Ok(Some((shape, codes)))
}

/// The parts of one tensor.
struct Reader<'a, 'n> {
    folder: &'a Folder,
    name: &'n str,
    path: &'a Path,
}

impl<'a> Reader<'a, '_> {
    fn error(&self, message: &str) -> Error {
        Error::file(self.path, format!("tensor `{}`: {message}", self.name))
    }

    fn refused(&self, message: &str) -> Error {
        Error::file(self.path, format!("tensor `{}` {message}", self.name)).with_hint(
            "supported: 4-bit and 8-bit folders that bitsandbytes 0.41 or later saved; else use the 16-bit original",
        )
    }

    /// The type of a 4-bit tensor, and its state as JSON.
    fn state(&self) -> Option<(&'static str, FilePart<'a>)> {
        ["nf4", "fp4"].into_iter().find_map(|kind| {
            let part = self.part(&format!("quant_state.bitsandbytes__{kind}"))?;
            Some((kind, part))
        })
    }

    fn part(&self, suffix: &str) -> Option<FilePart<'a>> {
        self.folder.part(&format!("{}.{suffix}", self.name))
    }

    fn needed(&self, suffix: &str) -> Result<FilePart<'a>> {
        self.part(suffix).ok_or_else(|| self.error(&format!("its `{suffix}` is missing")))
    }

    /// The floats of a part.
    fn floats(&self, part: &FilePart<'_>, name: &str) -> Result<Vec<f32>> {
        if part.dtype != Dtype::F32 {
            return Err(self.error(&format!("its `{name}` is {:?}, not F32", part.dtype)));
        }
        let mut values = vec![0.0; part.bytes.len() / 4];
        compute::dequant::dequantize(Storage::F32, part.bytes, &mut values);
        Ok(values)
    }

    fn four_bit(
        &self,
        name: &'static str,
        state: &FilePart<'_>,
        codes: &'a [u8],
    ) -> Result<(Vec<usize>, Kind<'a>)> {
        let json: Value = serde_json::from_slice(state.bytes)
            .map_err(|error| self.error(&format!("its `quant_state` is not JSON: {error}")))?;
        let shape = json["shape"].as_array().into_iter().flatten();
        let shape: Option<Vec<usize>> =
            shape.map(|dim| dim.as_u64().and_then(|dim| dim.try_into().ok())).collect();
        let shape = shape.ok_or_else(|| self.error("its `quant_state` has no `shape`"))?;
        // Products of sizes stay in range: the codes are in the file.
        let len = shape.iter().try_fold(1_usize, |len, &dim| len.checked_mul(dim));
        if len.is_none_or(|len| len.div_ceil(2) != codes.len()) {
            let bytes = codes.len();
            return Err(self.error(&format!("{bytes} bytes of codes are not a {shape:?}")));
        }
        let map = self.floats(&self.needed("quant_map")?, "quant_map")?;
        let map = map.try_into().map_err(|map: Vec<f32>| {
            self.error(&format!("its `quant_map` has {} numbers, not 16", map.len()))
        })?;
        let block_len = self.length(&json, "blocksize")?;
        let absmax = self.absmax(&json)?;
        Ok((shape, Kind::FourBit { name, codes, map, block_len, absmax }))
    }

    fn length(&self, state: &Value, key: &str) -> Result<usize> {
        let length = state[key].as_u64().and_then(|length| usize::try_from(length).ok());
        length.ok_or_else(|| self.error(&format!("its `quant_state` has no `{key}`")))
    }

    fn absmax(&self, state: &Value) -> Result<BlockAbsmax> {
        let absmax = self.needed("absmax")?;
        if state.get("nested_blocksize").is_none() {
            return Ok(BlockAbsmax::Plain(self.floats(&absmax, "absmax")?));
        }
        if absmax.dtype != Dtype::U8 {
            return Err(self.error(&format!("its `absmax` is {:?}, not U8", absmax.dtype)));
        }
        let offset = state["nested_offset"].as_f64();
        let offset =
            offset.ok_or_else(|| self.error("its `quant_state` has no `nested_offset`"))?;
        Ok(BlockAbsmax::Nested {
            codes: absmax.bytes.to_vec(),
            map: self.floats(&self.needed("nested_quant_map")?, "nested_quant_map")?,
            block_len: self.length(state, "nested_blocksize")?,
            absmax: self.floats(&self.needed("nested_absmax")?, "nested_absmax")?,
            offset: offset as f32,
        })
    }

    fn eight_bit(&self, codes: &'a [u8]) -> Result<Kind<'a>> {
        // The parts of 8-bit layers stand beside the weight, not below it.
        let beside = |part: &str| {
            let module = self.name.strip_suffix("weight")?;
            self.folder.part(&format!("{module}{part}"))
        };
        let Some(absmax) = beside("SCB") else {
            return Err(self.refused("has 8-bit codes without an `SCB`"));
        };
        let format =
            beside("weight_format").map_or(0, |part| part.bytes.first().copied().unwrap_or(0));
        if format != 0 {
            return Err(self.refused("is stored in tiles for one kind of GPU, not in rows"));
        }
        let absmax = self.floats(&absmax, "SCB")?;
        Ok(Kind::EightBit { codes, absmax })
    }
}
