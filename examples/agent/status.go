package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/pawl-ota/pawl/internal/journal"
	"github.com/pawl-ota/pawl/monitor"
	"github.com/pawl-ota/pawl/ota"
)

// condition is what status says beside what the updater knows. STATUS.md lists
// all fields.
type condition struct {
	Device *ota.Device `json:"device,omitempty"`
	// Last is the transaction that ended last.
	Last   *ota.Result `json:"last,omitempty"`
	Trial  *trialNow   `json:"trial,omitempty"` // while one is open
	Health *healthNow  `json:"health,omitempty"`
	Clock  *clockNow   `json:"clock,omitempty"`
	// Of an agent that was built with -tags monitor.
	Outbox *outboxNow `json:"outbox,omitempty"`
	Boot   *bootNow   `json:"boot,omitempty"`
}

// Times that end in Ns are nanoseconds of running time.
type trialNow struct {
	Used time.Duration `json:"usedNs"`
	Left time.Duration `json:"leftNs"`
}

type healthNow struct {
	Well   bool             `json:"well"`
	Reason string           `json:"reason,omitempty"`
	Probes []monitor.Answer `json:"probes"`
}

type clockNow struct {
	Time    time.Time `json:"time"`
	Trusted bool      `json:"trusted"`
}

type outboxNow struct {
	Results uint64 `json:"results"`
	Metrics uint64 `json:"metrics"`
	Bytes   int64  `json:"bytes"`
	Lost    uint64 `json:"lost"`
}

type bootNow struct {
	ID     string        `json:"id"`
	Uptime time.Duration `json:"uptimeNs"`
	Reason string        `json:"reason,omitempty"`
}

func status(ctx context.Context, a *agent) answer {
	st, err := ota.ReadStatus(a.config.stateDir())
	if err != nil {
		return failed("cannot read the state", err)
	}
	past, err := ota.ReadHistory(a.config.stateDir())
	if err != nil {
		return failed("cannot read the history", err)
	}
	ans := answer{Status: &st, Line: fmt.Sprintf("runs %s, %s", st.Running, st.State)}
	c := &ans.condition
	c.Device, c.Trial = &a.config.Device, a.trialNow(st)
	if len(past) > 0 {
		c.Last = &past[len(past)-1]
	}
	now, trusted := monitor.WallClock()
	c.Clock = &clockNow{now.UTC().Truncate(time.Second), trusted}
	problems := a.addLive(ctx, st.State, &ans)
	problems = append(problems, a.addMonitored(c)...)
	ans.more = append(statusLines(&ans), append(problems, st.Notes...)...)
	return ans
}

// trialNow says how long the open trial may still take. A power cut, or a look
// while it runs, finds up to half a minute too much left.
func (a *agent) trialNow(st ota.Status) *trialNow {
	if st.State != ota.InTrial {
		return nil
	}
	var record struct {
		Tx struct {
			Elapsed time.Duration `json:"elapsed"`
		} `json:"tx"`
	}
	if _, found, err := journal.Open(folder(a.config.stateDir())); err == nil {
		_ = json.Unmarshal(found.Body, &record) // then nothing of the time is used
	}
	t := a.config.Trial
	deadline := time.Duration(t.Deadline)
	if deadline == 0 {
		deadline = 10*time.Minute + time.Duration(t.Soak)
	}
	return &trialNow{record.Tx.Elapsed, max(0, deadline-record.Tx.Elapsed)}
}

// folder is a journal.Dir that is read alone.
type folder string

func (f folder) ReadFile(name string, max int64) ([]byte, error) {
	return readAtMost(filepath.Join(string(f), name), max)
}

func (f folder) WriteFile(string, []byte) error { return os.ErrPermission }

// addLive asks the services and the probes. What does not answer is no reason to
// keep back the rest.
func (a *agent) addLive(ctx context.Context, state ota.State, ans *answer) (problems []string) {
	if err := a.makeBackends(); err != nil {
		return []string{err.Error()}
	}
	defer a.closeApps()
	ans.Services, problems = a.services(ctx)
	if state == ota.Activating || state == ota.Reverting || state == ota.Committing {
		return problems // what is being switched is down on purpose
	}
	h, err := a.newHealth(a.parts(false), true, nil) // apps are told of by their services
	if err != nil || h == nil {
		return problems
	}
	ctx, cancel := context.WithTimeout(ctx, a.config.Trial.timeout())
	defer cancel()
	ans.Health = &healthNow{Well: true}
	if err := h.Check(ctx); err != nil {
		ans.Health.Well, ans.Health.Reason = false, err.Error()
	}
	ans.Health.Probes = h.Answers()
	return problems
}
