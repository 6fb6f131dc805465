//go:build monitor

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/pawl-ota/pawl/monitor"
	"github.com/pawl-ota/pawl/ota"
	"github.com/pawl-ota/pawl/ota/durable"
)

// mark is what the app itself says of a release: a file, which outlives the
// processes of both, about one transaction.
type mark struct {
	Format string   `json:"format"`
	Tx     ota.TxID `json:"tx"`
	Good   bool     `json:"good"`
	Why    string   `json:"why,omitempty"`
}

const markFormat = "pawl-mark/0"

func (c *config) markFile() string { return filepath.Join(c.State, "mark") }

// markGood and markBad are the commands of an app.
func markGood(_ context.Context, a *agent) answer { return a.mark(true, "") }

func markBad(_ context.Context, a *agent) answer { return a.mark(false, a.args.name) }

// mark notes durably what the app says of the release on trial, or of the one
// that was committed last.
func (a *agent) mark(good bool, why string) answer {
	subject, _, err := marked(a.config)
	if err == nil && subject.Tx == "" {
		err = errors.New("no release was installed by a transaction yet")
	}
	var data []byte
	if err == nil {
		data, err = json.Marshal(mark{markFormat, subject.Tx, good, why})
	}
	if err == nil {
		err = durable.WriteFile(a.config.markFile(), data, 0o600)
	}
	if err != nil {
		return failed("cannot mark the release", err)
	}
	return answer{Line: fmt.Sprintf("%s is marked %s", subject.To, map[bool]string{true: "good", false: "bad"}[good])}
}

// marked returns the transaction that a mark is about, and whether it is open.
func marked(c *config) (subject ota.Result, open bool, err error) {
	st, err := ota.ReadStatus(c.stateDir())
	if err != nil {
		return subject, false, err
	}
	if st.Tx != nil {
		return *st.Tx, true, nil
	}
	past, err := ota.ReadHistory(c.stateDir())
	for _, r := range past {
		if r.State == ota.Committed {
			subject = r
		}
	}
	return subject, false, err
}

// askMark asks whether the app has marked the release good: while that is on
// trial it has to, afterwards it may not have marked it bad.
func askMark(c *config) monitor.Ask {
	return func(context.Context) (string, error) {
		subject, open, err := marked(c)
		if err != nil {
			return "", err
		}
		var m mark
		data, err := readAtMost(c.markFile(), 4<<10)
		known := err == nil && json.Unmarshal(data, &m) == nil && m.Format == markFormat && m.Tx == subject.Tx && m.Tx != ""
		switch {
		case known && m.Good:
			return "marked good", nil
		case known:
			return "", fmt.Errorf("marked bad: %s", m.Why)
		case open:
			return "", errors.New("the app has not marked it good yet")
		}
		return "not marked", nil
	}
}
