// Command app is what the containers of tests run.
package main

import (
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"
	"time"
)

func main() {
	text := flag.String("text", "", "answer to every request")
	addr := flag.String("addr", "", "serve HTTP here")
	code := flag.Int("exit", 0, "exit code")
	after := flag.Duration("after", 0, "how long to run before that")
	sick := flag.Duration("sick", 0, "answer /health with 503 from then on")
	write := flag.String("write", "", "append the text to this file first")
	probe := flag.String("probe", "", "ask this address, and exit with 1 where it is not well")
	hunger := flag.Int("eat", 0, "MiB of memory to use")
	later := flag.Duration("later", 0, "how long to wait before that")
	to := flag.String("to", "", "answer with what this address says, which is asked again until it does")
	deaf := flag.Bool("deaf", false, "do not end on SIGTERM")
	flag.Parse()
	if *probe != "" {
		os.Exit(ask(*probe))
	}
	if *write != "" {
		note(*write, *text)
	}
	time.AfterFunc(*later, func() { eat(*hunger << 20) })
	if *addr != "" {
		go serve(*addr, *text, *to, *sick)
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM)
	if *deaf {
		signal.Ignore(syscall.SIGTERM)
	}
	var end <-chan time.Time
	if *addr == "" || *after > 0 {
		end = time.After(*after)
	}
	select {
	case <-stop:
	case <-end:
		os.Exit(*code)
	}
}

// eat uses memory until the program ends.
func eat(n int) {
	hog := make([]byte, n)
	for {
		for i := 0; i < n; i += 4096 {
			hog[i]++
		}
		<-time.After(time.Second)
	}
}

func serve(addr, text, to string, sick time.Duration) {
	var ill atomic.Bool
	if sick > 0 {
		time.AfterFunc(sick, func() { ill.Store(true) })
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		says := text
		if to != "" {
			says = pass(to)
		}
		_, _ = fmt.Fprint(w, says)
	})
	mux.HandleFunc("/health", func(w http.ResponseWriter, _ *http.Request) {
		if ill.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	})
	l, err := net.Listen("tcp", addr)
	if err == nil {
		err = http.Serve(l, mux)
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

// pass asks another one, again and again.
func pass(to string) string {
	client := http.Client{Timeout: 500 * time.Millisecond, Transport: &http.Transport{DisableKeepAlives: true}}
	for range 200 {
		r, err := client.Get("http://" + to + "/")
		if err == nil {
			text, err := io.ReadAll(r.Body)
			_ = r.Body.Close()
			if err == nil {
				return string(text)
			}
		}
		<-time.After(10 * time.Millisecond)
	}
	return "nobody answers"
}

func ask(addr string) int {
	client := http.Client{Timeout: 2 * time.Second}
	r, err := client.Get("http://" + addr + "/health")
	if err != nil {
		return 1
	}
	_ = r.Body.Close()
	if r.StatusCode != http.StatusOK {
		return 1
	}
	return 0
}

func note(path, text string) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err == nil {
		_, err = fmt.Fprintln(f, text)
	}
	if err == nil {
		err = f.Close()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
