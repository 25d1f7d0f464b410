"""Which instruction-set feature an instruction belongs to: what an engine needed when a CPU refused it.

- Pure: bytes in, a name out; the names are those of /proc/cpuinfo, as in `ekrun facts`.
- By encoding class, not a disassembler: what is not told apart here is None, never a guess.
- A64 classes are from the Arm Architecture Reference Manual for A-profile (DDI 0487), chapter C4 "A64 Instruction Set Encoding";
  x86 prefixes from Intel's Software Developer's Manual, volume 2, chapter 2 "Instruction Format" and appendix A "Opcode Map".
"""

from collections.abc import Mapping

FEATURES: Mapping[str, str] = {
    "aes": "AES",
    "amx_bf16": "AMX on bfloat16",
    "amx_fp16": "AMX on fp16",
    "amx_int8": "AMX on int8",
    "amx_tile": "AMX",
    "asimddp": "the dot product",
    "asimdfhm": "fp16 multiply with fp32 sum",
    "asimdhp": "fp16 vector arithmetic",
    "asimdrdm": "rounding doubling multiply",
    "atomics": "LSE atomics",
    "avx": "AVX",
    "avx2": "AVX2",
    "avx512_bf16": "AVX-512 on bfloat16",
    "avx512_fp16": "AVX-512 on fp16",
    "avx512_vbmi": "AVX-512 byte permutation",
    "avx512_vnni": "the AVX-512 dot product",
    "avx512bw": "AVX-512 on bytes and words",
    "avx512dq": "AVX-512 on doublewords and quadwords",
    "avx512f": "AVX-512",
    "avx512ifma": "AVX-512 integer fused multiply-add",
    "avx512vl": "AVX-512 on shorter vectors",
    "avx_ifma": "AVX integer fused multiply-add",
    "avx_vnni": "the AVX dot product",
    "avx_vnni_int8": "the AVX dot product of two signed",
    "avx_vnni_int16": "the AVX dot product on int16",
    "bf16": "bfloat16",
    "bmi1": "bit manipulation",
    "bmi2": "bit manipulation 2",
    "crc32": "CRC-32",
    "f16c": "fp16 conversion",
    "fcma": "complex numbers",
    "fma": "fused multiply-add",
    "fphp": "fp16 arithmetic",
    "gfni": "Galois field arithmetic",
    "i8mm": "the int8 matrix product",
    "jscvt": "JavaScript conversion",
    "lrcpc": "acquire loads of release consistency",
    "pclmulqdq": "carry-less multiplication",
    "pmull": "polynomial multiplication",
    "popcnt": "the population count",
    "sha1": "SHA-1",
    "sha2": "SHA-256",
    "sha3": "SHA-3",
    "sha512": "SHA-512",
    "sha_ni": "SHA",
    "sm3": "SM3",
    "sm4": "SM4",
    "sme": "the scalable matrix extension",
    "sse4_1": "SSE 4.1",
    "sse4_2": "SSE 4.2",
    "ssse3": "SSSE3",
    "sve": "scalable vectors",
    "vaes": "AES on vectors",
    "vpclmulqdq": "carry-less multiplication on vectors",
}


def decode_isa(arch: str, instruction: bytes) -> str | None:
    """The feature that `instruction`, in memory order, needs; None when it is not known, is a trap, or is every CPU's.

    `arch` is "aarch64" (4 bytes) or "x86_64" (up to 15 bytes; what follows the instruction is not looked at).
    """
    if arch == "aarch64":
        return _a64(int.from_bytes(instruction[:4], "little")) if len(instruction) >= 4 else None
    return _x86(instruction) if arch == "x86_64" else None


def is_trap(arch: str, instruction: bytes) -> bool:
    """True for an instruction that no CPU has: a program's own stop (UD2 and UD1 of x86, UDF of A64), a crash like any other."""
    if arch == "aarch64":
        return len(instruction) >= 4 and int.from_bytes(instruction[:4], "little") >> 16 == 0
    body = instruction.lstrip(b"\x66\x67") if arch == "x86_64" else b""
    return body[:2] in (b"\x0f\x0b", b"\x0f\xb9")


def describe_feature(feature: str) -> str:
    """`feature` with what it is, for people: "asimddp, the dot product"."""
    meaning = FEATURES.get(feature)
    return f"{feature}, {meaning}" if meaning else feature


# ---------------------------------------------------------------------------------------------------------------- A64

# (mask, value, feature): the first that matches. Names are of the manual's encoding classes (DDI 0487, C4.1).
_A64_CLASSES: tuple[tuple[int, int, str], ...] = (
    (0x9E000000, 0x80000000, "sme"),  # C4.1.1 SME encodings: op0 = 0000, bit 31 = 1
    (0x1E000000, 0x04000000, "sve"),  # C4.1.2 SVE encodings: bits 28:25 = 0010
    (0x7FE0E000, 0x1AC04000, "crc32"),  # data-processing (2 source): CRC32*, CRC32C*
    (0x3FFFFC00, 0x38BFC000, "lrcpc"),  # atomic memory operations: LDAPR*
    (0x3F200C00, 0x38200000, "atomics"),  # atomic memory operations: LDADD*, SWP*, ...
    (0x3FA07C00, 0x08A07C00, "atomics"),  # compare and swap: CAS*
    (0xBFA07C00, 0x08207C00, "atomics"),  # compare and swap pair: CASP*
    (0xFFFE0C00, 0x4E280800, "aes"),  # cryptographic AES
    (0xFFE0CC00, 0x5E004000, "sha2"),  # cryptographic three-register SHA, opcode 1xx: SHA256H, SHA256H2, SHA256SU1
    (0xFFE0CC00, 0x5E000000, "sha1"),  # the same, opcode 0xx: SHA1C, SHA1P, SHA1M, SHA1SU0
    (0xFFFFFC00, 0x5E282800, "sha2"),  # cryptographic two-register SHA: SHA256SU0
    (0xFFFE0C00, 0x5E280800, "sha1"),  # the same: SHA1H, SHA1SU1
    (0xBFE0FC00, 0x0EE0E000, "pmull"),  # Advanced SIMD three different: PMULL of 64-bit polynomials (8-bit: every CPU)
    (0xFFE0FC00, 0xCE608C00, "sha3"),  # cryptographic three-register SHA 512: RAX1
    (0xFFE0FC00, 0xCE60C000, "sm3"),  # the same: SM3PARTW1
    (0xFFE0FC00, 0xCE60C400, "sm3"),  # the same: SM3PARTW2
    (0xFFE0FC00, 0xCE60C800, "sm4"),  # the same: SM4EKEY
    (0xFFE0F000, 0xCE608000, "sha512"),  # the same: SHA512H, SHA512H2, SHA512SU1
    (0xFFFFFC00, 0xCEC08000, "sha512"),  # cryptographic two-register SHA 512: SHA512SU0
    (0xFFFFFC00, 0xCEC08400, "sm4"),  # the same: SM4E
    (0xFFE0C000, 0xCE408000, "sm3"),  # cryptographic three-register, imm2: SM3TT*
    (0xFFE08000, 0xCE400000, "sm3"),  # cryptographic four-register: SM3SS1
    (0xFFC08000, 0xCE000000, "sha3"),  # the same: EOR3, BCAX
    (0xFFE00000, 0xCE800000, "sha3"),  # XAR
    (0xFFFFFC00, 0x1E634000, "bf16"),  # floating-point data-processing (1 source): BFCVT
    (0xBFFFFC00, 0x0EA16800, "bf16"),  # Advanced SIMD two-register miscellaneous: BFCVTN
    (0xFFFFFC00, 0x1E7E0000, "jscvt"),  # conversion between floating-point and integer: FJCVTZS
    (0x9F60C400, 0x0E400400, "asimdhp"),  # Advanced SIMD three same (FP16)
    (0xDF60C400, 0x5E400400, "asimdhp"),  # Advanced SIMD scalar three same FP16
    (0x9F7E0C00, 0x0E780800, "asimdhp"),  # Advanced SIMD two-register miscellaneous (FP16)
    (0xDF7E0C00, 0x5E780800, "asimdhp"),  # Advanced SIMD scalar two-register miscellaneous FP16
    (0xBFF8FC00, 0x0F00FC00, "asimdhp"),  # Advanced SIMD modified immediate: FMOV of half precision
    (0xBF7FFC00, 0x0E30C800, "asimdhp"),  # Advanced SIMD across lanes: FMAXNMV, FMINNMV of half precision
    (0xBF7FFC00, 0x0E30F800, "asimdhp"),  # the same: FMAXV, FMINV
    (0xFF7E0C00, 0x5E300800, "asimdhp"),  # Advanced SIMD scalar pairwise: FADDP, FMAXP, ... of half precision
    (0xBF60FC00, 0x0E20EC00, "asimdfhm"),  # Advanced SIMD three same: FMLAL, FMLSL
    (0xBF60FC00, 0x2E20CC00, "asimdfhm"),  # the same: FMLAL2, FMLSL2
)


def _a64(word: int) -> str | None:
    for mask, value, feature in _A64_CLASSES:
        if word & mask == value:
            return feature
    return _a64_three_same_extra(word) or _a64_by_element(word) or _a64_half_precision(word)


def _a64_three_same_extra(word: int) -> str | None:
    """C4.1, Advanced SIMD three-register extension, and its scalar form: U = bit 29, size = 23:22, opcode = 14:11."""
    unsigned, size, opcode = word >> 29 & 1, word >> 22 & 3, word >> 11 & 15
    if word & 0xDF208400 == 0x5E008400:
        return "asimdrdm" if unsigned and opcode in (0, 1) else None
    if word & 0x9F208400 != 0x0E008400:
        return None
    if opcode == 2:
        return "asimddp"  # SDOT, UDOT
    if not unsigned:
        return "i8mm" if opcode in (3, 4, 5) else None  # USDOT; SMMLA; USMMLA
    if opcode in (0, 1):
        return "asimdrdm"  # SQRDMLAH, SQRDMLSH
    if opcode == 4:
        return "i8mm"  # UMMLA
    if opcode == 15 or (opcode == 13 and size == 1):
        return "bf16"  # BFDOT, BFMLALB, BFMLALT; BFMMLA
    return "fcma" if opcode >= 8 else None  # FCMLA, FCADD


def _a64_by_element(word: int) -> str | None:
    """C4.1, Advanced SIMD vector x indexed element, and its scalar form: U = bit 29, size = 23:22, opcode = 15:12."""
    scalar = word & 0xDF000400 == 0x5F000000
    if not scalar and word & 0x9F000400 != 0x0F000000:
        return None
    unsigned, size, opcode = word >> 29 & 1, word >> 22 & 3, word >> 12 & 15
    if unsigned and opcode in (13, 15):
        return "asimdrdm"  # SQRDMLAH, SQRDMLSH
    if size == 0 and (opcode == 9 or (opcode in (1, 5) and not unsigned)):
        return "asimdhp"  # FMUL, FMULX; FMLA, FMLS of half precision
    if scalar:
        return None
    if opcode == 14 and size == 2:
        return "asimddp"  # SDOT, UDOT
    if opcode == 15 and not unsigned:
        return "i8mm" if size in (0, 2) else "bf16"  # SUDOT, USDOT; BFDOT, BFMLALB, BFMLALT
    if size == 2 and opcode in ((8, 12) if unsigned else (0, 4)):
        return "asimdfhm"  # FMLAL2, FMLSL2; FMLAL, FMLSL
    return "fcma" if unsigned and opcode in (1, 3, 5, 7) and size else None  # FCMLA


def _a64_half_precision(word: int) -> str | None:
    """C4.1, floating-point classes with ptype = 11 (bits 23:22); FCVT from half precision is every CPU's."""
    floating = word & 0x7F000000 in (0x1E000000, 0x1F000000) and word >> 22 & 3 == 3
    return "fphp" if floating and word & 0xFF3E7C00 != 0x1E224000 else None


# ---------------------------------------------------------------------------------------------------------------- x86

_LEGACY_PREFIXES = frozenset(b"\x26\x2e\x36\x3e\x64\x65\x66\x67\xf0\xf2\xf3")


def _span(*ranges: str) -> frozenset[int]:
    """Opcodes by hexadecimal ranges: "20-25"."""
    ends = ([int(end, 16) for end in text.split("-")] for text in ranges)
    return frozenset(opcode for pair in ends for opcode in range(pair[0], pair[-1] + 1))


# VEX opcodes that AVX has on 128 bits and AVX2 on 256 (SDM appendix A: the columns of 66-prefixed integer operations).
_INTEGER: Mapping[int, frozenset[int]] = {
    1: _span("60-6d", "70-76", "d1-d5", "d7-df", "e0-e5", "e8-ef", "f1-f6", "f8-fe"),
    2: _span("00-0b", "1c-1e", "20-25", "28-2b", "30-35", "37-41"),
    3: _span("0e-0f", "42", "4c"),
}
# VEX opcodes that are AVX2's on any length.
_AVX2: Mapping[int, frozenset[int]] = {
    1: frozenset(),
    2: _span("16", "36", "45-47", "58-5a", "78-79", "8c", "8e", "90-93"),
    3: _span("00-02", "38-39", "46"),
}
_FMA = _span("96-9f", "a6-af", "b6-bf")

# (map, mandatory prefix as 0 none, 1 66, 2 F3, 3 F2; opcode) -> feature, where one opcode tells. SDM volume 2, their pages.
_VEX: Mapping[tuple[int, int, int], str] = {
    **{(2, 1, opcode): "avx_vnni" for opcode in range(0x50, 0x54)},
    **{(2, prefix, opcode): "avx_vnni_int8" for prefix in (0, 2, 3) for opcode in (0x50, 0x51)},
    **{(2, prefix, opcode): "avx_vnni_int16" for prefix in (0, 1, 2) for opcode in (0xD2, 0xD3)},
    **{(2, 1, opcode): "avx_ifma" for opcode in (0xB4, 0xB5)},
    **{(2, prefix, 0x49): "amx_tile" for prefix in (0, 1, 3)},
    **{(2, prefix, 0x4B): "amx_tile" for prefix in (1, 2, 3)},
    **{(2, prefix, 0x5E): "amx_int8" for prefix in range(4)},
    **{(2, prefix, 0xF5): "bmi2" for prefix in (0, 2, 3)},
    **{(2, prefix, 0xF7): "bmi2" for prefix in (1, 2, 3)},
    (2, 2, 0x5C): "amx_bf16",
    (2, 3, 0x5C): "amx_fp16",
    (2, 1, 0x13): "f16c",
    (3, 1, 0x1D): "f16c",
    (2, 0, 0xF2): "bmi1",
    (2, 0, 0xF3): "bmi1",
    (2, 0, 0xF7): "bmi1",
    (2, 3, 0xF6): "bmi2",
    (3, 3, 0xF0): "bmi2",
    (2, 1, 0xCF): "gfni",
    (3, 1, 0xCE): "gfni",
    (3, 1, 0xCF): "gfni",
}

_EVEX: Mapping[tuple[int, int, int], str] = {
    **{(2, 1, opcode): "avx512_vnni" for opcode in range(0x50, 0x54)},
    **{(2, 1, opcode): "avx512ifma" for opcode in (0xB4, 0xB5)},
    **{(2, 1, opcode): "avx512_vbmi" for opcode in (0x75, 0x7D, 0x83, 0x8D)},
    (2, 2, 0x52): "avx512_bf16",
    (2, 2, 0x72): "avx512_bf16",
    (2, 3, 0x72): "avx512_bf16",
}
# 66-prefixed integer operations on bytes and words; on doublewords the opcodes differ.
_AVX512BW: Mapping[int, frozenset[int]] = {
    1: _span("60-61", "63-65", "67-69", "6b", "71", "74-75", "d1", "d5", "d8-da", "dc-de", "e0-e1", "e3-e5", "e8-ea")
    | _span("ec-ee", "f1", "f5-f6", "f8-f9", "fc-fd"),
    2: _span("00", "04", "0b", "1c-1d", "20", "30", "38", "3a", "3c", "3e", "66", "78-7a"),
    3: _span("0f", "3e-3f", "42"),
}
_AVX512DQ: Mapping[int, frozenset[int]] = {1: _span("54-57"), 2: frozenset(), 3: _span("50-51", "56-57", "66-67")}

# Without VEX or EVEX, behind 0F 38 and 0F 3A.
_SSE: Mapping[int, tuple[tuple[frozenset[int], str], ...]] = {
    2: (
        (_span("00-0b", "1c-1e"), "ssse3"),
        (_span("10", "14-15", "17", "20-25", "28-2b", "30-35", "38-41"), "sse4_1"),
        (_span("37"), "sse4_2"),
        (_span("c8-cd"), "sha_ni"),
        (_span("db-df"), "aes"),
    ),
    3: (
        (_span("0f"), "ssse3"),
        (_span("08-0e", "14-17", "20-22", "40-42"), "sse4_1"),
        (_span("44"), "pclmulqdq"),
        (_span("60-63"), "sse4_2"),
        (_span("cc"), "sha_ni"),
        (_span("df"), "aes"),
    ),
}


def _x86(code: bytes) -> str | None:
    """SDM volume 2, 2.1 to 2.3 and 2.7: legacy prefixes, then VEX (C5, C4), EVEX (62), or REX and an opcode map."""
    at = 0
    while at < len(code) and code[at] in _LEGACY_PREFIXES:
        at += 1
    prefixes, rest = code[:at], code[at : at + 6]
    padded = rest + bytes(7 - len(rest))
    if rest[:1] == b"\xc5" and len(rest) >= 3:
        return _vex(1, padded[1], wide=False, opcode=padded[2], modrm=padded[3])
    if rest[:1] == b"\xc4" and len(rest) >= 4:
        return _vex(padded[1] & 31, padded[2], wide=bool(padded[2] >> 7), opcode=padded[3], modrm=padded[4])
    if rest[:1] == b"\x62" and len(rest) >= 5:
        return _evex(padded[1] & 7, padded[2], padded[3], padded[4])
    return _legacy(prefixes, rest[1:] if rest and rest[0] >> 4 == 4 else rest)


def _vex(opcode_map: int, fields: int, *, wide: bool, opcode: int, modrm: int) -> str | None:
    """SDM volume 2, 2.3: `fields` ends with L (bit 2) and the mandatory prefix (bits 1:0)."""
    prefix, long = fields & 3, fields >> 2 & 1
    if opcode_map not in (1, 2, 3):
        return None
    if opcode_map == 2 and opcode in _FMA:
        return "fma"
    if (feature := _VEX.get((opcode_map, prefix, opcode))) is not None:
        return feature
    if _is_mask_operation(opcode_map, opcode):
        return "avx512f" if prefix == 0 and not wide else "avx512dq" if prefix == 1 and not wide else "avx512bw"
    if (opcode_map, opcode) == (3, 0x44):
        return "vpclmulqdq" if long else "pclmulqdq"
    if opcode_map == 2 and 0xDC <= opcode <= 0xDF:
        return "vaes" if long else "aes"
    if opcode_map == 2 and 0x18 <= opcode <= 0x1A and modrm >= 0xC0:
        return "avx2"  # VBROADCAST from a register; AVX has it from memory
    integer = opcode in _INTEGER[opcode_map] and (opcode_map != 1 or prefix == 1 or opcode == 0x70)
    return "avx2" if opcode in _AVX2[opcode_map] or (long and integer) else "avx"


def _is_mask_operation(opcode_map: int, opcode: int) -> bool:
    """KAND and the like, KMOV, KORTEST, KTEST; KSHIFT."""
    if opcode_map == 1:
        return opcode in _span("41-47", "4a-4b", "90-93", "98-99")
    return opcode_map == 3 and opcode in _span("30-33")


def _evex(opcode_map: int, second: int, third: int, opcode: int) -> str | None:
    """SDM volume 2, 2.7.1: the map in bits 2:0 of the first byte, W and pp in the second, L'L (6:5) in the third."""
    if opcode_map in (5, 6):
        return "avx512_fp16"
    if opcode_map not in (1, 2, 3):
        return None
    prefix, length = second & 3, third >> 5 & 3
    if (feature := _EVEX.get((opcode_map, prefix, opcode))) is not None:
        wide_permutation = feature == "avx512_vbmi" and opcode != 0x83 and second >> 7
        return "avx512bw" if wide_permutation else feature
    if (prefix == 1 and opcode in _AVX512BW[opcode_map]) or ((opcode_map, prefix) == (1, 3) and opcode in (0x6F, 0x7F)):
        return "avx512bw"
    if opcode in _AVX512DQ[opcode_map] or (opcode_map, prefix, opcode, second >> 7) == (2, 1, 0x40, 1):
        return "avx512dq"
    return "avx512vl" if length < 2 and not _is_scalar(opcode_map, prefix, opcode) else "avx512f"


# Operations on one element, whose length says nothing. In map 1 most are told by the prefix F3 or F2.
_SCALAR: Mapping[int, frozenset[int]] = {
    1: _span("10-11", "2a", "2c-2d", "51", "58-5a", "5c-5f", "78-79", "7b", "c2"),
    2: _span("2d", "43", "4d", "4f", "99", "9b", "9d", "9f", "a9", "ab", "ad", "af", "b9", "bb", "bd", "bf"),
    3: _span("0a-0b", "14-17", "20-22", "27", "55"),
}


def _is_scalar(opcode_map: int, prefix: int, opcode: int) -> bool:
    if opcode_map == 1 and prefix < 2:
        return opcode in _span("2e-2f", "6e", "7e", "d6")
    return opcode in _SCALAR[opcode_map]


def _legacy(prefixes: bytes, code: bytes) -> str | None:
    if code[:1] != b"\x0f" or len(code) < 2:
        return None
    if code[1] == 0xB8 and 0xF3 in prefixes:
        return "popcnt"
    opcode_map = {0x38: 2, 0x3A: 3}.get(code[1])
    if opcode_map is None or len(code) < 3:
        return None
    if opcode_map == 2 and code[2] in (0xF0, 0xF1):
        return "sse4_2" if 0xF2 in prefixes else None  # CRC32; without the prefix MOVBE
    return next((feature for opcodes, feature in _SSE[opcode_map] if code[2] in opcodes), None)
