/* SPDX-License-Identifier: MIT */
/* The blocks of a pcapng section (draft-ietf-opsawg-pcapng), and the numbers in them. */
#ifndef TCPTRACE_PCAPNG_BLOCKS_H
#define TCPTRACE_PCAPNG_BLOCKS_H

#include <stdint.h>
#include <string.h>

/* Section 4.1; a palindrome, so that it is known before the byte order is. */
#define BLOCK_SECTION_HEADER 0x0a0d0d0au
#define BLOCK_INTERFACE 1
#define BLOCK_PACKET 2 /* obsolete, appendix A */
#define BLOCK_SIMPLE_PACKET 3
#define BLOCK_ENHANCED_PACKET 6
#define BYTE_ORDER_MAGIC 0x1a2b3c4du

/* Type and length before the body, the length again after it. */
#define BLOCK_HEAD_BYTES 8
#define BLOCK_FRAME_BYTES 12
/* A longer block is refused, as Wireshark does: no packet makes one. */
#define BLOCK_MAX_BYTES (16u << 20)

#define OPTION_END 0
#define OPTION_PACKET_FLAGS 2 /* epb_flags, pack_flags */
/* A custom option with bytes that may be copied into a changed file. */
#define OPTION_CUSTOM_BYTES 2989

/* What our own writer adds to a packet that a record says more of than its bytes: */
#define OWN_OPTION_ENTERPRISE 32473
#define OWN_OPTION_NAME "tcptrace"
#define OWN_OPTION_NAME_BYTES 8
#define OWN_OPTION_VERSION 1
/* enterprise u32, name, version u8, note u8, segments u16, frame_bytes u32 */
#define OWN_OPTION_BYTES 20

static inline uint16_t load16(const uint8_t *p, int swapped)
{
	uint16_t value;

	memcpy(&value, p, sizeof(value));
	return swapped ? __builtin_bswap16(value) : value;
}

static inline uint32_t load32(const uint8_t *p, int swapped)
{
	uint32_t value;

	memcpy(&value, p, sizeof(value));
	return swapped ? __builtin_bswap32(value) : value;
}

static inline uint64_t load64(const uint8_t *p, int swapped)
{
	uint64_t value;

	memcpy(&value, p, sizeof(value));
	return swapped ? __builtin_bswap64(value) : value;
}

static inline uint32_t padded(uint32_t bytes)
{
	return (bytes + 3) & ~3u;
}

#endif
