//! Where fields lie in the running kernel's structures, from its type information (Documentation/bpf/btf.rst).
//! Total: any bytes give offsets or an error.

use anyhow::{Context as _, Result, bail, ensure};
use rustc_hash::FxHashMap;

const MAGIC: u16 = 0xeb9f;
const TYPE: usize = 12;
const MEMBER: usize = 12;
const PARAMETER: usize = 8;
const STRUCT: u32 = 4;
const UNION: u32 = 5;
const FUNCTION: u32 = 12;
const PROTOTYPE: u32 = 13;
/// Nesting of structures that are looked into.
const MAX_DEPTH: u32 = 8;

/// Type information, as far as structures need it.
pub struct Btf<'a> {
    types: &'a [u8],
    strings: &'a [u8],
    /// Where each type begins, by id; 0 is void.
    places: Vec<usize>,
    structures: FxHashMap<&'a [u8], u32>,
}

struct Type {
    kind: u32,
    /// Number of members.
    length: usize,
    has_bitfields: bool,
    /// Id of what it refers to, for kinds that do.
    target: u32,
    place: usize,
}

impl<'a> Btf<'a> {
    /// From what `/sys/kernel/btf/vmlinux` holds.
    pub fn parse(bytes: &'a [u8]) -> Result<Self> {
        let word = |at| u32_at(bytes, at).context("type information is cut short");
        let magic = bytes.first_chunk().map(|&magic| u16::from_ne_bytes(magic));
        ensure!(magic == Some(MAGIC), "no type information of this byte order");
        let header = word(4)? as usize;
        let section = |offset: u32, length: u32| {
            let start = header.checked_add(offset as usize)?;
            bytes.get(start..start.checked_add(length as usize)?)
        };
        let types = section(word(8)?, word(12)?).context("type information is cut short")?;
        let strings = section(word(16)?, word(20)?).context("type information is cut short")?;
        let mut btf = Self { types, strings, places: vec![0], structures: FxHashMap::default() };
        btf.index()?;
        Ok(btf)
    }

    /// Bytes from the start of `structure` to the field that `path` leads to.
    pub fn offset(&self, structure: &str, path: &[&str]) -> Result<u32> {
        let what = || format!("the kernel has no field {structure}.{}", path.join("."));
        let mut id = *self.structures.get(structure.as_bytes()).with_context(what)?;
        let mut bits = 0_u32;
        for field in path {
            let (offset, target) = self.member(id, field.as_bytes(), MAX_DEPTH).with_context(what)?;
            bits = bits.checked_add(offset).with_context(what)?;
            id = target;
        }
        ensure!(bits.is_multiple_of(8), "{structure}.{} does not begin with a byte", path.join("."));
        Ok(bits / 8)
    }

    /// Names of the arguments of those functions that the kernel has.
    pub fn arguments<'f>(
        &self,
        functions: impl IntoIterator<Item = &'f str>,
    ) -> FxHashMap<&'f str, Vec<&'a [u8]>> {
        let wanted: FxHashMap<&[u8], &str> =
            functions.into_iter().map(|function| (function.as_bytes(), function)).collect();
        let mut found = FxHashMap::default();
        for &place in self.places.iter().skip(1) {
            let Some(function) = self.at(place).filter(|found| found.kind == FUNCTION) else { continue };
            let name = u32_at(self.types, place).and_then(|name| self.string(name));
            if let Some(name) = name.and_then(|name| wanted.get(name))
                && let Some(arguments) = self.parameters(function.target)
            {
                found.insert(*name, arguments);
            }
        }
        found
    }

    fn parameters(&self, prototype: u32) -> Option<Vec<&'a [u8]>> {
        let prototype = self.resolve(prototype).filter(|found| found.kind == PROTOTYPE)?;
        let name = |index| self.string(u32_at(self.types, prototype.place + TYPE + index * PARAMETER)?);
        (0..prototype.length).map(name).collect()
    }

    fn index(&mut self) -> Result<()> {
        let mut place = 0;
        while place < self.types.len() {
            let Some(found) = self.at(place) else { bail!("type information is cut short") };
            let id = u32::try_from(self.places.len()).context("too many types")?;
            if found.kind == STRUCT
                && let Some(name) = self.string(u32_at(self.types, place).unwrap_or(0))
                && !name.is_empty()
            {
                self.structures.entry(name).or_insert(id);
            }
            self.places.push(place);
            // include/uapi/linux/btf.h: what follows each kind.
            let extra = match found.kind {
                1 | 14 | 17 => 4,
                3 => 12,
                STRUCT | UNION | 15 | 19 => found.length * MEMBER,
                6 | 13 => found.length * 8,
                2 | 7..=12 | 16 | 18 => 0,
                unknown => bail!("unknown kind of type {unknown}"),
            };
            place += TYPE + extra;
        }
        Ok(())
    }

    fn at(&self, place: usize) -> Option<Type> {
        let info = u32_at(self.types, place + 4)?;
        Some(Type {
            kind: info >> 24 & 0x1f,
            length: (info & 0xffff) as usize,
            has_bitfields: info >> 31 == 1,
            target: u32_at(self.types, place + 8)?,
            place,
        })
    }

    /// The type behind names and qualifiers.
    fn resolve(&self, mut id: u32) -> Option<Type> {
        for _ in 0..MAX_DEPTH {
            let found = self.at(*self.places.get(id as usize).filter(|_| id != 0)?)?;
            match found.kind {
                8..=11 | 18 => id = found.target,
                _ => return Some(found),
            }
        }
        None
    }

    /// Offset in bits and type of a member, those of unnamed structures within included.
    fn member(&self, id: u32, wanted: &[u8], depth: u32) -> Option<(u32, u32)> {
        let depth = depth.checked_sub(1)?;
        let found = self.resolve(id).filter(|found| matches!(found.kind, STRUCT | UNION))?;
        (0..found.length).find_map(|index| {
            let place = found.place + TYPE + index * MEMBER;
            let name = self.string(u32_at(self.types, place)?)?;
            let target = u32_at(self.types, place + 4)?;
            let offset = u32_at(self.types, place + 8)?;
            let offset = if found.has_bitfields { offset & 0x00ff_ffff } else { offset };
            if name == wanted {
                return Some((offset, target));
            }
            if !name.is_empty() {
                return None;
            }
            let (inner, target) = self.member(target, wanted, depth)?;
            Some((offset.checked_add(inner)?, target))
        })
    }

    fn string(&self, offset: u32) -> Option<&'a [u8]> {
        let rest = self.strings.get(offset as usize..)?;
        rest.iter().position(|&b| b == 0).map(|end| &rest[..end])
    }
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|&word| u32::from_ne_bytes(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `struct outer { int a; struct { int b; struct inner c; }; }`, `struct inner { int d:3; int e; }`
    fn example() -> Vec<u8> {
        let strings = b"\0int\0outer\0a\0b\0c\0inner\0d\0e\0";
        let kind = |kind: u32, length: u32| kind << 24 | length;
        let types: [u32; 34] = [
            1,
            kind(1, 0),
            4,
            0x0100_0020, // 1: int
            5,
            kind(STRUCT, 2),
            16,
            11,
            1,
            0,
            0,
            3,
            32, // 2: outer
            0,
            kind(STRUCT, 2),
            12,
            13,
            1,
            0,
            15,
            4,
            32, // 3: unnamed
            17,
            1 << 31 | kind(STRUCT, 2),
            8,
            23,
            1,
            3 << 24,
            25,
            1,
            32, // 4: inner
            0,
            kind(2, 0),
            4, // 5: pointer
        ];
        let types: Vec<u8> = types.iter().flat_map(|word| word.to_ne_bytes()).collect();
        let mut bytes = MAGIC.to_ne_bytes().to_vec();
        bytes.extend([1, 0]);
        let lengths = [24, 0, types.len(), types.len(), strings.len()];
        bytes.extend(lengths.iter().flat_map(|&word| u32::try_from(word).expect("small").to_ne_bytes()));
        bytes.extend(types);
        bytes.extend(strings);
        bytes
    }

    #[test]
    fn fields_are_found_in_nested_and_unnamed_structures() {
        let bytes = example();
        let btf = Btf::parse(&bytes).expect("valid");
        let check = |structure, path: &[&str]| btf.offset(structure, path).ok();
        assert_eq!(check("outer", &["a"]), Some(0));
        assert_eq!(check("outer", &["b"]), Some(4));
        assert_eq!(check("outer", &["c", "e"]), Some(12));
        assert_eq!(check("inner", &["d"]), Some(0));
        assert_eq!(check("outer", &["e"]), None);
        assert_eq!(check("nothing", &["a"]), None);
    }

    #[test]
    fn any_bytes_are_accepted_or_refused() {
        let whole = example();
        for end in 0..whole.len() {
            assert!(Btf::parse(&whole[..end]).is_err(), "{end}");
        }
        for at in 0..whole.len() {
            for value in [0, 1, 0x80, 0xff] {
                let mut bytes = whole.clone();
                bytes[at] = value;
                if let Ok(btf) = Btf::parse(&bytes) {
                    let _ = btf.offset("outer", &["c", "e"]);
                }
            }
        }
    }
}
