/*
 * What the disassembler Zydis says of encodings, to hold QEMU's decoder against
 *
 * Reads lines of a mode, 64 or 32 (compatibility mode), and an instruction's
 * bytes in hexadecimal.  Prints for each its length and the set of instructions
 * that it belongs to, or "-" where there is no such instruction.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include <Zydis/Zydis.h>
#include <stdio.h>

/* The rest, which may be an immediate, is zeros. */
static void read_bytes(const char *text, ZyanU8 *bytes)
{
    unsigned value;

    for (unsigned i = 0; i < ZYDIS_MAX_INSTRUCTION_LENGTH; i++) {
        if (sscanf(text + 2 * i, "%2x", &value) != 1) {
            return;
        }
        bytes[i] = value;
    }
}

int main(void)
{
    ZydisDecoder decoders[2];
    char line[64];

    ZydisDecoderInit(&decoders[0], ZYDIS_MACHINE_MODE_LONG_64,
                     ZYDIS_STACK_WIDTH_64);
    ZydisDecoderInit(&decoders[1], ZYDIS_MACHINE_MODE_LONG_COMPAT_32,
                     ZYDIS_STACK_WIDTH_32);
    while (fgets(line, sizeof(line), stdin)) {
        ZyanU8 bytes[ZYDIS_MAX_INSTRUCTION_LENGTH] = { 0 };
        ZydisDecodedInstruction insn;

        read_bytes(line + 3, bytes);
        if (ZYAN_SUCCESS(ZydisDecoderDecodeInstruction(
                &decoders[line[0] == '3'], NULL, bytes, sizeof(bytes),
                &insn))) {
            printf("%d %s\n", insn.length,
                   ZydisISASetGetString(insn.meta.isa_set));
        } else {
            puts("-");
        }
    }
    return 0;
}
