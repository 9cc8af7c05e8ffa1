"""A classic BPF program run by libpcap on frames of our own making."""

from libc.stdint cimport uint8_t, uint32_t, uintptr_t
from libc.string cimport memset

from tcptrace.sources.capture_file.frame_filter cimport (
    loaded_bpf_insn, loaded_bpf_program, loaded_pkthdr, pcap_offline_filter_f)

import numpy as np

from tcptrace.sources.libpcap import function_address


def matching(bytes program not None, const uint8_t[:, ::1] frames, const uint32_t[::1] lengths):
    """Which of `frames`, a row each, the program (an array of struct bpf_insn) lets through: a bool for each.

    `lengths`: the frames' bytes, no more than a row has.  MissingFeatureError without libpcap.
    """
    cdef pcap_offline_filter_f run = <pcap_offline_filter_f><uintptr_t>function_address("pcap_offline_filter")
    result = np.zeros(frames.shape[0], np.uint8)
    cdef uint8_t[::1] passed = result
    cdef loaded_bpf_program loaded
    cdef loaded_pkthdr header
    cdef Py_ssize_t index
    memset(&header, 0, sizeof(header))
    loaded.length = len(program) // sizeof(loaded_bpf_insn)
    loaded.instructions = <loaded_bpf_insn *><const uint8_t *>program
    with nogil:
        for index in range(frames.shape[0]):
            header.caplen = header.len = min(lengths[index], <uint32_t>frames.shape[1])
            passed[index] = run(&loaded, &header, &frames[index, 0]) != 0
    return result.view(np.bool_)
