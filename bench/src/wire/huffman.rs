//! The Huffman code of HPACK (RFC 7541, appendix B), decoding only.
//!
//! The code is canonical, so the length of each symbol's code says everything. Servers send
//! repeated headers by index, so this runs for error texts and first answers only.

/// Bits of the code of each byte value.
const LENGTHS: [u8; 256] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28,
    28, 28, 28, 28, 28, 28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5,
    5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10, 13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7,
    7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6, 15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6,
    6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22, 22, 23, 22,
    23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22,
    21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20,
    22, 22, 22, 23, 22, 22, 23, 26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19,
    21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27, 20, 24, 20, 21, 22, 21, 21, 23, 22,
    22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
];
const LENGTH_MAX: usize = 30;

/// Symbols in the order of their codes, with the first code and first position of each length.
pub(super) struct Decoder {
    symbols: Vec<u8>,
    first_code: [u32; LENGTH_MAX + 1],
    first_position: [usize; LENGTH_MAX + 1],
    count: [usize; LENGTH_MAX + 1],
}

impl Decoder {
    pub(super) fn new() -> Self {
        let mut symbols: Vec<u8> = (0..=255).collect();
        symbols.sort_by_key(|symbol| (LENGTHS[usize::from(*symbol)], *symbol));
        let mut count = [0; LENGTH_MAX + 1];
        for length in LENGTHS {
            count[usize::from(length)] += 1;
        }
        let mut first_code = [0; LENGTH_MAX + 1];
        let mut first_position = [0; LENGTH_MAX + 1];
        for length in 1..=LENGTH_MAX {
            first_code[length] = (first_code[length - 1] + count[length - 1] as u32) << 1;
            first_position[length] = first_position[length - 1] + count[length - 1];
        }
        Self { symbols, first_code, first_position, count }
    }

    /// The bytes, or nothing if the input is not a code word sequence with padding of ones.
    pub(super) fn decode(&self, input: &[u8]) -> Option<Vec<u8>> {
        let mut output = Vec::with_capacity(input.len() * 8 / 5);
        let (mut code, mut length) = (0u32, 0usize);
        for bit in input.iter().flat_map(|byte| (0..8).rev().map(move |n| (byte >> n) & 1)) {
            code = (code << 1) | u32::from(bit);
            length += 1;
            if length > LENGTH_MAX {
                return None;
            }
            let offset = code.wrapping_sub(self.first_code[length]) as usize;
            if code >= self.first_code[length] && offset < self.count[length] {
                output.push(self.symbols[self.first_position[length] + offset]);
                (code, length) = (0, 0);
            }
        }
        let is_padding = length < 8 && code == (1 << length) - 1;
        is_padding.then_some(output)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_the_rfc_decode() {
        let decoder = Decoder::new();
        let name = [0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff];
        assert_eq!(decoder.decode(&name).unwrap(), b"www.example.com");
        assert_eq!(decoder.decode(&[0xa8, 0xeb, 0x10, 0x64, 0x9c, 0xbf]).unwrap(), b"no-cache");
    }

    #[test]
    fn padding_other_than_ones_is_refused() {
        // "0" is five zero bits; the padding is zeros too.
        assert!(Decoder::new().decode(&[0b0000_0000]).is_none());
    }
}
