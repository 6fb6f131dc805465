package updates

import "github.com/pawl-ota/pawl/ota"

// Sample emits a sample of the name "updates" of what u remembers: how many
// transactions (tried) and how they ended (committed, reverted), of the last one
// its running time and downtime in seconds (took, downtime), how many processes
// found its trial open (starts) and the bytes that it fetched (fetched); which
// release runs (running), how many are held back (held), and what this program
// fetched so far, by cause (bytes.metadata, bytes.content, bytes.report,
// bytes.wasted).
func (r *Reporter) Sample(u *ota.Updater) {
	r.o.Stream.Sample("updates", r.values(u.Status(), u.History()))
}

func (r *Reporter) values(status ota.Status, history []ota.Result) map[string]float64 {
	v := map[string]float64{
		"tried": float64(len(history)), "committed": 0, "reverted": 0,
		"running": float64(status.Running.Seq), "held": float64(len(status.Held)),
	}
	for _, res := range history {
		if _, ok := v[string(res.State)]; ok {
			v[string(res.State)]++
		}
		v["took"], v["downtime"] = res.Took.Seconds(), res.Downtime.Seconds()
		v["starts"], v["fetched"] = float64(res.Starts), float64(res.Bytes)
	}
	if b := r.bytes(); b != nil {
		v["bytes.metadata"], v["bytes.content"] = float64(b.Metadata), float64(b.Content)
		v["bytes.report"], v["bytes.wasted"] = float64(b.Report), float64(b.Wasted)
	}
	return v
}
