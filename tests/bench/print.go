package main

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
)

// measure is one number of a row, and what it is to be compared with.
type measure struct {
	row, name, unit string
	value           func(result) float64
	base            string  // the chain that Ambit is compared with
	want            float64 // the ratio to reach
	higher          bool    // higher is better
}

func gbits(r result) float64    { return float64(r.Bytes) * 8 / r.Elapsed.Seconds() / 1e9 }
func cpuPerGB(r result) float64 { return r.CPU.Seconds() / (float64(r.Bytes) / 1e9) }
func cpuPerOp(r result) float64 { return float64(r.CPU.Microseconds()) / float64(r.Ops) }
func p50(r result) float64      { return float64(r.P50.Nanoseconds()) / 1e3 }
func p99(r result) float64      { return float64(r.P99.Nanoseconds()) / 1e3 }
func rate(r result) float64     { return float64(r.Ops) / r.Elapsed.Seconds() }

var measures = []measure{
	{row: workloads[0].row, name: "throughput", unit: "Gbit/s", value: gbits, base: tlsPer, higher: true},
	{row: workloads[0].row, name: "CPU", unit: "s/GB", value: cpuPerGB, base: tlsPer, want: 1.05},
	{row: workloads[1].row, name: "throughput", unit: "Gbit/s", value: gbits, base: tlsPer, higher: true},
	{row: workloads[1].row, name: "CPU", unit: "s/GB", value: cpuPerGB, base: tlsPer, want: 1.05},
	{row: workloads[2].row, name: "p50", unit: "µs", value: p50, base: tlsPer, want: 1.1},
	{row: workloads[2].row, name: "p99", unit: "µs", value: p99, base: tlsPer},
	{row: workloads[2].row, name: "CPU", unit: "µs/op", value: cpuPerOp, base: tlsPer},
	{row: workloads[3].row, name: "p50", unit: "µs", value: p50, base: tlsPer},
	{row: workloads[3].row, name: "p99", unit: "µs", value: p99, base: tlsPer},
	{row: workloads[3].row, name: "CPU", unit: "µs/op", value: cpuPerOp, base: tlsPer, want: 0.9},
	{row: workloads[4].row, name: "rate", unit: "1/s", value: rate, base: tcp, want: 1.0, higher: true},
	{row: workloads[4].row, name: "CPU", unit: "µs/op", value: cpuPerOp, base: tcp},
}

func lostPart(r result) float64 { return 100 * float64(r.Lost) / float64(max(r.Ops+r.Lost, 1)) }

// datagramMeasures are those of the loads of datagrams.
func datagramMeasures() []measure {
	var out []measure
	for _, w := range workloads {
		if strings.HasPrefix(w.kind, "datagrams") {
			out = append(out,
				measure{row: w.row, name: "rate", unit: "1/s", value: rate, base: direct, higher: true},
				measure{row: w.row, name: "CPU", unit: "µs/op", value: cpuPerOp, base: direct},
				measure{row: w.row, name: "lost", unit: "%", value: lostPart})
		}
	}
	return out
}

func (b *bench) print() {
	w := tabwriter.NewWriter(os.Stdout, 0, 4, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(w, "load\tmeasure\t%s\t%s\t%s\t%s\tratio\tto reach\t\n", direct, tcp, tlsPer, ambit)
	last := ""
	for _, m := range append(measures, datagramMeasures()...) {
		if len(b.results[m.row]) == 0 {
			continue
		}
		row := m.row
		if row == last {
			row = ""
		}
		last = m.row
		fmt.Fprintf(w, "%s\t%s, %s\t", row, m.name, m.unit)
		for _, chain := range chainNames {
			fmt.Fprintf(w, "%.4g\t", b.median(m.row, chain, m.value))
		}
		fmt.Fprintf(w, "%s\t%s\t\n", b.ratio(m), goal(m.want, m.higher))
	}
	_ = w.Flush()
}

// ratio is the median of the rounds' own ratios: what else the machine did during
// a round fell on both of its chains.
func (b *bench) ratio(m measure) string {
	ours, base := b.results[m.row][ambit], b.results[m.row][m.base]
	if len(ours) == 0 || len(base) == 0 {
		return ""
	}
	ratios := make([]float64, 0, len(ours))
	for i := range ours {
		ratios = append(ratios, m.value(ours[i])/m.value(base[i]))
	}
	slices.Sort(ratios)
	return fmt.Sprintf("%.2f × %s", ratios[len(ratios)/2], m.base)
}

func goal(want float64, higher bool) string {
	switch {
	case want == 0:
		return ""
	case higher:
		return fmt.Sprintf("≥ %.2f", want)
	}
	return fmt.Sprintf("≤ %.2f", want)
}
