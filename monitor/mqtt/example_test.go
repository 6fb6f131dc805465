package mqtt_test

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/pawl-ota/pawl/monitor"
	"github.com/pawl-ota/pawl/monitor/mqtt"
	"github.com/pawl-ota/pawl/monitor/outbox"
)

// Events go into an outbox, and from there to a broker.
func Example() {
	dir, err := os.MkdirTemp("", "outbox")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = os.RemoveAll(dir) }()
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	box, err := outbox.Open(ctx, outbox.Options{Dir: dir + "/outbox"})
	if err != nil {
		fmt.Println(err)
		return
	}
	stream, err := monitor.NewStream(monitor.StreamOptions{Device: "pump-7", Sink: box})
	if err != nil {
		fmt.Println(err)
		return
	}
	sender, err := mqtt.New(mqtt.Options{URL: "mqtt://127.0.0.1:1", Device: "pump-7"}) // nobody is there
	if err != nil {
		fmt.Println(err)
		return
	}
	stream.Emit(monitor.Event{Kind: monitor.Boot})
	go func() { _ = box.Run(ctx, sender) }()
	fmt.Println(box.Flush(ctx), box.Stats().Results)
	<-ctx.Done()
	fmt.Println(box.Close(), box.Stats().Results)
	// Output:
	// <nil> 1
	// <nil> 1
}
