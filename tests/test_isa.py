"""Which feature a refused instruction needs: real instructions, as the compiler's assembler encodes them."""

import struct
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.runner.isa import FEATURES, decode_isa, describe_feature, is_trap

A64 = {
    "sdot v0.4s, v1.16b, v2.16b": "asimddp",
    "udot v0.2s, v1.8b, v2.8b": "asimddp",
    "sdot v0.4s, v1.16b, v2.4b[3]": "asimddp",
    "udot v31.2s, v30.8b, v29.4b[1]": "asimddp",
    "fadd v0.8h, v1.8h, v2.8h": "asimdhp",
    "fmla v0.8h, v1.8h, v2.8h": "asimdhp",
    "fmla v0.8h, v1.8h, v2.h[5]": "asimdhp",
    "fmul h0, h1, v2.h[5]": "asimdhp",
    "fmulx h0, h1, h2": "asimdhp",
    "fsqrt v0.8h, v1.8h": "asimdhp",
    "scvtf v0.8h, v1.8h": "asimdhp",
    "fcmgt v0.8h, v1.8h, #0.0": "asimdhp",
    "fmaxnmv h0, v1.8h": "asimdhp",
    "fminv h0, v1.4h": "asimdhp",
    "faddp h0, v1.2h": "asimdhp",
    "fmov v0.8h, #1.0": "asimdhp",
    "frecpe h0, h1": "asimdhp",
    "fadd h0, h1, h2": "fphp",
    "fmadd h0, h1, h2, h3": "fphp",
    "fcmp h0, h1": "fphp",
    "fcsel h0, h1, h2, eq": "fphp",
    "fmov h0, #1.0": "fphp",
    "fmov h0, w1": "fphp",
    "fcvtzs x0, h1": "fphp",
    "scvtf h0, x1": "fphp",
    "scvtf h0, w1, #4": "fphp",
    "fmlal v0.4s, v1.4h, v2.4h": "asimdfhm",
    "fmlsl2 v0.4s, v1.4h, v2.4h": "asimdfhm",
    "fmlal v0.4s, v1.4h, v2.h[1]": "asimdfhm",
    "fmlal2 v0.4s, v1.4h, v2.h[1]": "asimdfhm",
    "ldadd w0, w1, [x2]": "atomics",
    "ldaddal x0, x1, [x2]": "atomics",
    "stset w0, [x2]": "atomics",
    "swpb w0, w1, [x2]": "atomics",
    "casal x0, x1, [x2]": "atomics",
    "casb w0, w1, [x2]": "atomics",
    "casp x0, x1, x2, x3, [x4]": "atomics",
    "ldapr w0, [x1]": "lrcpc",
    "sqrdmlah v0.4s, v1.4s, v2.4s": "asimdrdm",
    "sqrdmlsh h0, h1, h2": "asimdrdm",
    "sqrdmlah v0.8h, v1.8h, v2.h[7]": "asimdrdm",
    "sqrdmlsh s0, s1, v2.s[1]": "asimdrdm",
    "bfdot v0.4s, v1.8h, v2.8h": "bf16",
    "bfdot v0.4s, v1.8h, v2.2h[1]": "bf16",
    "bfmmla v0.4s, v1.8h, v2.8h": "bf16",
    "bfmlalb v0.4s, v1.8h, v2.8h": "bf16",
    "bfmlalt v0.4s, v1.8h, v2.h[3]": "bf16",
    "bfcvt h0, s1": "bf16",
    "bfcvtn2 v0.8h, v1.4s": "bf16",
    "smmla v0.4s, v1.16b, v2.16b": "i8mm",
    "ummla v0.4s, v1.16b, v2.16b": "i8mm",
    "usmmla v0.4s, v1.16b, v2.16b": "i8mm",
    "usdot v0.4s, v1.16b, v2.16b": "i8mm",
    "sudot v0.4s, v1.16b, v2.4b[2]": "i8mm",
    "usdot v0.4s, v1.16b, v2.4b[2]": "i8mm",
    "fcmla v0.4s, v1.4s, v2.4s, #90": "fcma",
    "fcadd v0.4s, v1.4s, v2.4s, #270": "fcma",
    "fcmla v0.4s, v1.4s, v2.s[1], #90": "fcma",
    "fjcvtzs w0, d1": "jscvt",
    "ptrue p0.s": "sve",
    "ld1w {z0.s}, p0/z, [x0]": "sve",
    "sdot z0.s, z1.b, z2.b": "sve",
    "fmla z0.s, p0/m, z1.s, z2.s": "sve",
    "zero {za}": "sme",
    "aese v0.16b, v1.16b": "aes",
    "aesimc v0.16b, v1.16b": "aes",
    "sha1c q0, s1, v2.4s": "sha1",
    "sha1h s0, s1": "sha1",
    "sha256h q0, q1, v2.4s": "sha2",
    "sha256su0 v0.4s, v1.4s": "sha2",
    "sha256su1 v0.4s, v1.4s, v2.4s": "sha2",
    "sha512h q0, q1, v2.2d": "sha512",
    "sha512su0 v0.2d, v1.2d": "sha512",
    "eor3 v0.16b, v1.16b, v2.16b, v3.16b": "sha3",
    "bcax v0.16b, v1.16b, v2.16b, v3.16b": "sha3",
    "rax1 v0.2d, v1.2d, v2.2d": "sha3",
    "xar v0.2d, v1.2d, v2.2d, #3": "sha3",
    "sm3ss1 v0.4s, v1.4s, v2.4s, v3.4s": "sm3",
    "sm4e v0.4s, v1.4s": "sm4",
    "pmull v0.1q, v1.1d, v2.1d": "pmull",
    "crc32cx w0, w1, x2": "crc32",
    # every CPU's
    "pmull v0.8h, v1.8b, v2.8b": None,
    "add x0, x1, x2": None,
    "mul w0, w1, w2": None,
    "udiv w0, w1, w2": None,
    "lslv w0, w1, w2": None,
    "ldr w0, [x1, x2]": None,
    "ldr q0, [x1, #16]": None,
    "ldxr w0, [x1]": None,
    "stlxp w0, x1, x2, [x3]": None,
    "ldar w0, [x1]": None,
    "fadd v0.4s, v1.4s, v2.4s": None,
    "fmla v0.4s, v1.4s, v2.4s": None,
    "fmla v0.4s, v1.4s, v2.s[1]": None,
    "fmul v0.2d, v1.2d, v2.d[1]": None,
    "mla v0.4s, v1.4s, v2.s[1]": None,
    "mls v0.8h, v1.8h, v2.h[1]": None,
    "smlal v0.4s, v1.4h, v2.h[1]": None,
    "sqrdmulh v0.8h, v1.8h, v2.h[1]": None,
    "smull v0.8h, v1.8b, v2.8b": None,
    "sadalp v0.4s, v1.8h": None,
    "addv s0, v1.4s": None,
    "fmaxnmv s0, v1.4s": None,
    "addp d0, v1.2d": None,
    "faddp s0, v1.2s": None,
    "fcvt s0, h1": None,
    "fcvt d0, h1": None,
    "fcvt h0, s1": None,
    "fcvtl v0.4s, v1.4h": None,
    "fmov v0.4s, #1.0": None,
    "movi v0.16b, #1": None,
    "dup v0.8h, v1.h[1]": None,
    "mov h0, v1.h[1]": None,
    "ins v0.h[1], v1.h[2]": None,
    "tbl v0.16b, {v1.16b}, v2.16b": None,
    "ext v0.16b, v1.16b, v2.16b, #3": None,
    "zip1 v0.8h, v1.8h, v2.8h": None,
    "scvtf v0.4s, v1.4s": None,
    "fmadd s0, s1, s2, s3": None,
    "fcvtzs w0, s1": None,
    "shl v0.4s, v1.4s, #3": None,
    "mrs x0, midr_el1": None,
    "b .": None,
}

X86 = {
    "vaddps %xmm0, %xmm1, %xmm2": "avx",
    "vmovdqa (%rdi), %ymm3": "avx",
    "vmovups %ymm8, 16(%r9)": "avx",
    "vpaddd %xmm0, %xmm1, %xmm2": "avx",
    "vzeroupper": "avx",
    "vbroadcastss (%rdi), %ymm0": "avx",
    "vbroadcastss %xmm1, %ymm0": "avx2",
    "vpaddd %ymm0, %ymm1, %ymm2": "avx2",
    "vpmaddubsw %ymm0, %ymm1, %ymm2": "avx2",
    "vpmaddwd %ymm9, %ymm10, %ymm11": "avx2",
    "vpbroadcastd (%rdi), %ymm0": "avx2",
    "vpbroadcastb %xmm1, %xmm0": "avx2",
    "vpermd %ymm0, %ymm1, %ymm2": "avx2",
    "vinserti128 $1, %xmm0, %ymm1, %ymm2": "avx2",
    "vgatherdps %ymm0, (%rdi,%ymm1,4), %ymm2": "avx2",
    "vpsrlvd %ymm0, %ymm1, %ymm2": "avx2",
    "vpmovsxbw %xmm0, %ymm1": "avx2",
    "vfmadd231ps %ymm0, %ymm1, %ymm2": "fma",
    "vfmadd213ss %xmm0, %xmm1, %xmm2": "fma",
    "vfnmadd132pd (%rdi), %ymm1, %ymm2": "fma",
    "vcvtph2ps %xmm0, %ymm1": "f16c",
    "vcvtps2ph $0, %ymm0, %xmm1": "f16c",
    "{vex} vpdpbusd %ymm0, %ymm1, %ymm2": "avx_vnni",
    "{vex} vpdpwssds %xmm0, %xmm1, %xmm2": "avx_vnni",
    "vpdpbssd %ymm0, %ymm1, %ymm2": "avx_vnni_int8",
    "vpdpwusd %ymm0, %ymm1, %ymm2": "avx_vnni_int16",
    "{vex} vpmadd52luq %ymm0, %ymm1, %ymm2": "avx_ifma",
    "andn %eax, %ebx, %ecx": "bmi1",
    "blsr %eax, %ebx": "bmi1",
    "bextr %eax, %ebx, %ecx": "bmi1",
    "shlx %rax, %rbx, %rcx": "bmi2",
    "pdep %eax, %ebx, %ecx": "bmi2",
    "bzhi %eax, %ebx, %ecx": "bmi2",
    "mulx %eax, %ebx, %ecx": "bmi2",
    "rorx $3, %eax, %ebx": "bmi2",
    "vaesenc %ymm0, %ymm1, %ymm2": "vaes",
    "vaesenc %xmm0, %xmm1, %xmm2": "aes",
    "vpclmulqdq $0, %ymm0, %ymm1, %ymm2": "vpclmulqdq",
    "vgf2p8mulb %xmm0, %xmm1, %xmm2": "gfni",
    "vaddps %zmm0, %zmm1, %zmm2": "avx512f",
    "vfmadd231ps %zmm20, %zmm1, %zmm2": "avx512f",
    "vmovdqu32 (%rdi), %zmm17": "avx512f",
    "vmovups (%rdi), %zmm0{%k1}{z}": "avx512f",
    "vpmaddwd (%rdi), %zmm1, %zmm2": "avx512bw",
    "vaddss %xmm16, %xmm17, %xmm18": "avx512f",
    "vfmadd231ss %xmm16, %xmm17, %xmm18": "avx512f",
    "vaddps %ymm16, %ymm17, %ymm18": "avx512vl",
    "vmovdqu64 (%rdi), %xmm16": "avx512vl",
    "vpternlogd $1, %ymm0, %ymm1, %ymm2": "avx512vl",
    "vpaddb %zmm0, %zmm1, %zmm2": "avx512bw",
    "vmovdqu8 (%rdi), %zmm1": "avx512bw",
    "vpmaddubsw %zmm0, %zmm1, %zmm2": "avx512bw",
    "vpmullq %zmm0, %zmm1, %zmm2": "avx512dq",
    "vandps %zmm0, %zmm1, %zmm2": "avx512dq",
    "vpmulld %zmm0, %zmm1, %zmm2": "avx512f",
    "vpdpbusd %zmm0, %zmm1, %zmm2": "avx512_vnni",
    "vpdpbusds %ymm16, %ymm1, %ymm2": "avx512_vnni",
    "vpdpwssd (%rdi){1to16}, %zmm1, %zmm2": "avx512_vnni",
    "vdpbf16ps %zmm0, %zmm1, %zmm2": "avx512_bf16",
    "vcvtneps2bf16 %zmm0, %ymm1": "avx512_bf16",
    "vaddph %zmm0, %zmm1, %zmm2": "avx512_fp16",
    "vfmadd231ph %zmm0, %zmm1, %zmm2": "avx512_fp16",
    "vpmadd52luq %zmm0, %zmm1, %zmm2": "avx512ifma",
    "vpermb %zmm0, %zmm1, %zmm2": "avx512_vbmi",
    "vpermw %zmm0, %zmm1, %zmm2": "avx512bw",
    "kmovw %eax, %k1": "avx512f",
    "kmovq %rax, %k1": "avx512bw",
    "kortestw %k0, %k1": "avx512f",
    "kandb %k0, %k1, %k2": "avx512dq",
    "ldtilecfg (%rdi)": "amx_tile",
    "tilezero %tmm0": "amx_tile",
    "tileloadd (%rdi,%rsi,1), %tmm0": "amx_tile",
    "tdpbusd %tmm0, %tmm1, %tmm2": "amx_int8",
    "tdpbssd %tmm0, %tmm1, %tmm2": "amx_int8",
    "tdpbf16ps %tmm0, %tmm1, %tmm2": "amx_bf16",
    "tdpfp16ps %tmm0, %tmm1, %tmm2": "amx_fp16",
    "pshufb %xmm0, %xmm9": "ssse3",
    "pmulld %xmm0, %xmm1": "sse4_1",
    "pextrd $1, %xmm0, %eax": "sse4_1",
    "pcmpgtq %xmm0, %xmm1": "sse4_2",
    "crc32l %eax, %ebx": "sse4_2",
    "popcntq %rax, %r9": "popcnt",
    "aesenc %xmm0, %xmm1": "aes",
    "pclmulqdq $0, %xmm0, %xmm1": "pclmulqdq",
    "sha256rnds2 %xmm0, %xmm1, %xmm2": "sha_ni",
    # every CPU's
    "addps %xmm0, %xmm1": None,
    "paddd %xmm8, %xmm9": None,
    "mov %rax, (%rdi)": None,
    "lock xaddl %eax, (%rdi)": None,
    "call *%rax": None,
    "nop": None,
}

# What a broken program stops itself by.
TRAPS = {"x86_64": ("ud2", "ud1 %eax, %ebx"), "aarch64": ("udf #0", "udf #57005")}
TABLES = {"aarch64": A64, "x86_64": X86}
SLOT = 16


def text_section(elf: bytes) -> bytes:
    """The bytes of .text of a 64-bit object file."""
    (table,) = struct.unpack_from("<Q", elf, 40)
    size, count, names = struct.unpack_from("<HHH", elf, 58)
    sections = [struct.unpack_from("<IIQQQQIIQQ", elf, table + i * size) for i in range(count)]
    names_at = sections[names][4]
    for name, *rest in sections:
        if elf[names_at + name :].startswith(b".text\0"):
            return elf[rest[3] : rest[3] + rest[4]]
    raise AssertionError("no .text")


def assemble(folder: Path, arch: str, instructions: list[str]) -> dict[str, bytes]:
    """Each instruction with what follows it in its slot: on x86, its length is not told."""
    head = ".arch armv9-a+sme+sve+bf16+i8mm+fp16+fp16fml+sha3+sm4+aes+crypto\n" if arch == "aarch64" else ""
    (folder / "all.s").write_text(head + "".join(f"{line}\n.balign {SLOT}\n" for line in instructions))
    argv = [sys.executable, "-m", "ziglang", "cc", "-target", f"{arch}-linux-gnu", "-c", "all.s", "-o", "all.o"]
    subprocess.run(argv, cwd=folder, check=True, timeout=120)
    code = text_section((folder / "all.o").read_bytes())
    return {line: code[SLOT * i : SLOT * (i + 1)] for i, line in enumerate(instructions)}


@pytest.fixture(scope="module", params=sorted(TABLES))
def assembled(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, bytes]]:
    arch = request.param
    return arch, assemble(tmp_path_factory.mktemp(arch), arch, [*TABLES[arch], *TRAPS[arch]])


def test_every_instruction_needs_what_it_needs(assembled: tuple[str, dict[str, bytes]]) -> None:
    arch, code = assembled
    found = {line: decode_isa(arch, code[line]) for line in TABLES[arch]}
    assert found == TABLES[arch]
    assert not any(is_trap(arch, code[line]) for line in TABLES[arch])


def test_a_trap_is_no_feature(assembled: tuple[str, dict[str, bytes]]) -> None:
    arch, code = assembled
    for line in TRAPS[arch]:
        assert is_trap(arch, code[line])
        assert decode_isa(arch, code[line]) is None


def test_prefixes_do_not_hide_the_instruction() -> None:
    vpdpbusd = bytes.fromhex("62f26d4850c8")
    assert decode_isa("x86_64", vpdpbusd) == "avx512_vnni"
    assert decode_isa("x86_64", b"\x67\x64" + vpdpbusd) == "avx512_vnni"


@given(st.sampled_from(["aarch64", "x86_64", "riscv64"]), st.binary(max_size=15))
def test_any_bytes_have_an_answer(arch: str, code: bytes) -> None:
    """An answer is a known name; bytes cut short are None, never an exception."""
    feature = decode_isa(arch, code)
    assert feature is None or feature in FEATURES
    is_trap(arch, code)


@pytest.mark.parametrize("arch", ["aarch64", "x86_64"])
def test_nothing_is_nothing(arch: str) -> None:
    assert decode_isa(arch, b"") is None
    assert not is_trap(arch, b"")


def test_features_for_people() -> None:
    assert describe_feature("asimddp") == "asimddp, the dot product"
    assert describe_feature("unheard-of") == "unheard-of"
