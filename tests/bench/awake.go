package main

import (
	"encoding/binary"
	"fmt"
	"os"
)

// latencyFile is the kernel's interface for how long a core may take to wake up, for as
// long as the file is open (Documentation/power/pm_qos_interface).
const latencyFile = "/dev/cpu_dma_latency"

// keepAwake keeps idle cores polling until stop is called, as measurements of latency do: under
// a hypervisor a core that has halted takes longer to wake than a hop of a round trip costs, and
// whether it halts depends on what its processes did before.
func keepAwake() (stop func(), err error) {
	f, err := os.OpenFile(latencyFile, os.O_WRONLY, 0)
	if err != nil {
		return nil, fmt.Errorf("keep cores awake (needs root, and a kernel with cpuidle): %w", err)
	}
	if err := binary.Write(f, binary.NativeEndian, int32(0)); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("keep cores awake: %w", err)
	}
	return func() { _ = f.Close() }, nil
}
