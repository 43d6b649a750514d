"""What guests run, in a few dozen bytes: spin, idle, or wake 1,000 times a second.

Each is a firmware image. QEMU maps a 64 KiB `-bios` image just below 4 GiB, where an x86 starts,
and again at 0xF0000, where real-mode code and a start-up IPI reach it. So a guest needs no SeaBIOS,
no disk and no memory set-up, and its loop runs a few milliseconds after QEMU starts, also under TCG
inside TCG.

The code is written as machine code with its assembly beside it, so that nobody needs an assembler.
Each piece of code has its own place in the image, below.
"""

import os
from enum import Enum
from functools import cache

_SIZE = 0x10000
_START, _WOKEN, _TABLE, _TICK, _RESET = 0x0000, 0x1000, 0x2000, 0x3000, 0xFFF0

_JUMP_TO_START = """
ea 00 00 00 f0             ; ljmp  0xf000:_START
"""

# The local APIC's registers lie at 0xfee00000, which real mode cannot address: so the code visits
# protected mode just to give DS a limit of 4 GiB, which outlasts the return ("unreal mode").
_REACH_APIC = """
fa                         ; cli
2e 66 0f 01 16 00 20       ; lgdt  cs:[_TABLE]
0f 20 c0                   ; mov   eax, cr0
0c 01                      ; or    al, 1                  protected mode
0f 22 c0                   ; mov   cr0, eax
bb 08 00                   ; mov   bx, 8                  the flat data segment
8e db                      ; mov   ds, bx
24 fe                      ; and   al, 0xfe               back to real mode
0f 22 c0                   ; mov   cr0, eax
"""

_SEGMENTS = """
0f 00 08 20 0f 00          ; limit 15, address 0xf2008
00 00                      ; padding
00 00 00 00 00 00 00 00    ; the null descriptor
ff ff 00 00 00 92 cf 00    ; data, base 0, limit 4 GiB
"""

_WAKE_OTHERS_AND_SPIN = """
66 67 c7 05 00 03 e0 fe 00 45 0c 00  ; mov dword [0xfee00300], 0xc4500    INIT to all but self
b9 00 00                   ; mov   cx, 0
e2 fe                      ; loop  $                      65,536 turns: time for INIT to arrive
66 67 c7 05 00 03 e0 fe f1 46 0c 00  ; mov dword [0xfee00300], 0xc46f1    start-up IPI: 0xf1000
eb fe                      ; jmp   $
"""

_SPIN = """
eb fe                      ; jmp   $
"""

# The other vCPUs are left as the reset leaves them: waiting for a start-up IPI, using no CPU.
_HALT = """
fa                         ; cli
f4                         ; hlt
eb fd                      ; jmp   -1                     should an NMI ever wake it
"""

# The PIT's channel 0 ticks every 1193 of its 1193182 Hz, and the vCPU halts between ticks. At each
# wake it writes five bytes to port 0xe9: the ACPI PM timer's low 24 bits (the time now) and the
# PIT's count (how far off the next tick is). Both run on one virtual clock: lab.measure.wake_delays
# makes delays of them.
_TICK_AND_HALT = """
66 67 c7 05 f0 00 e0 fe ff 01 00 00  ; mov dword [0xfee000f0], 0x1ff      local APIC on
66 67 c7 05 50 03 e0 fe 00 07 00 00  ; mov dword [0xfee00350], 0x700      LINT0: from the PIC
31 c0                      ; xor   ax, ax
8e d8                      ; mov   ds, ax
8e d0                      ; mov   ss, ax
bc 00 70                   ; mov   sp, 0x7000
c7 06 20 00 00 30          ; mov   word [0x20], _TICK     interrupt 8 goes to f000:_TICK
c7 06 22 00 00 f0          ; mov   word [0x22], 0xf000
b0 11 e6 20                ; mov   al, 0x11; out 0x20, al the first PIC: initialise,
b0 08 e6 21                ; mov   al, 0x08; out 0x21, al IRQ 0 is interrupt 8,
b0 04 e6 21                ; mov   al, 0x04; out 0x21, al the second PIC is on IRQ 2,
b0 01 e6 21                ; mov   al, 0x01; out 0x21, al 8086 mode,
b0 fe e6 21                ; mov   al, 0xfe; out 0x21, al all masked but IRQ 0
ba f8 0c                   ; mov   dx, 0xcf8              PCI 00:01.3 (PIIX4 power management):
66 b8 40 0b 00 80          ; mov   eax, 0x80000b40        register 0x40, I/O base
66 ef                      ; out   dx, eax
b2 fc                      ; mov   dl, 0xfc
66 b8 01 06 00 00          ; mov   eax, 0x601             is 0x600
66 ef                      ; out   dx, eax
b2 f8                      ; mov   dl, 0xf8
66 b8 80 0b 00 80          ; mov   eax, 0x80000b80        register 0x80
66 ef                      ; out   dx, eax
b2 fc                      ; mov   dl, 0xfc
b0 01                      ; mov   al, 1                  decodes that base
ee                         ; out   dx, al
b0 34 e6 43                ; mov   al, 0x34; out 0x43, al channel 0, mode 2 (rate generator):
b0 a9 e6 40                ; mov   al, 0xa9; out 0x40, al 0x4a9 = 1193
b0 04 e6 40                ; mov   al, 0x04; out 0x40, al
fb                         ; sti
f4                         ; hlt
eb fc                      ; jmp   -2
"""

_STAMP = """
ba 08 06                   ; mov   dx, 0x608              the PM timer
66 ed                      ; in    eax, dx
66 89 c3                   ; mov   ebx, eax
b0 00 e6 43                ; mov   al, 0; out 0x43, al    latch channel 0's count
e4 40 88 c1                ; in    al, 0x40; mov cl, al
e4 40 88 c5                ; in    al, 0x40; mov ch, al
88 d8 e6 e9                ; mov   al, bl; out 0xe9, al
88 f8 e6 e9                ; mov   al, bh; out 0xe9, al
66 c1 eb 10                ; shr   ebx, 16
88 d8 e6 e9                ; mov   al, bl; out 0xe9, al
88 c8 e6 e9                ; mov   al, cl; out 0xe9, al
88 e8 e6 e9                ; mov   al, ch; out 0xe9, al
b0 20 e6 20                ; mov   al, 0x20; out 0x20, al end of interrupt
cf                         ; iret
"""


class Image(Enum):
    """What a guest does for ever."""

    SPIN = "spin"
    """All vCPUs spin."""
    IDLE = "idle"
    """All vCPUs halt."""
    PERIODIC = "periodic"
    """The first vCPU wakes 1,000 times a second and says when; the others halt."""


_PIECES = {
    Image.SPIN: {
        _START: _REACH_APIC + _WAKE_OTHERS_AND_SPIN,
        _WOKEN: _SPIN,
        _TABLE: _SEGMENTS,
    },
    Image.IDLE: {_START: _HALT},
    Image.PERIODIC: {
        _START: _REACH_APIC + _TICK_AND_HALT,
        _TABLE: _SEGMENTS,
        _TICK: _STAMP,
    },
}


def rom(image: Image) -> bytes:
    """The firmware image: 64 KiB."""
    content = bytearray(_SIZE)
    for offset, listing in {**_PIECES[image], _RESET: _JUMP_TO_START}.items():
        code = _machine_code(listing)
        content[offset : offset + len(code)] = code
    return bytes(content)


def _machine_code(listing: str) -> bytes:
    return b"".join(bytes.fromhex(line.partition(";")[0]) for line in listing.splitlines())


@cache
def image_fd(image: Image) -> int:
    """The image in memory, which a child that inherits it opens as /dev/fd/N: no file to remove."""
    fd = os.memfd_create(f"lab-{image.value}")
    os.write(fd, rom(image))
    return fd
