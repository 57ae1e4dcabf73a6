// Package go_driver is what drivers written in Go share: see ../protocol.py for what is asked on
// standard input, and ../work.py for the work.
package go_driver

import (
	"bufio"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"log"
	"os"
	"sync"
	"time"
)

// Timer is one piece of work: whose it is, and when it is due.
type Timer struct {
	DueMs          int64
	PodID          string
	PostID         string
	MemberID       string
	EngagementType string
}

type asked struct {
	Do     string `json:"do"`
	Count  int    `json:"count"`
	FromMs int64  `json:"from_ms"`
	ToMs   int64  `json:"to_ms"`
}

type fired struct {
	FirstMs  int64   `json:"first_ms"`
	LastMs   int64   `json:"last_ms"`
	Lateness []int64 `json:"lateness_ms"`
}

var (
	mutex sync.Mutex
	seen  fired
)

// Configure reads the driver's one argument into config.
func Configure(config any) {
	if err := json.Unmarshal([]byte(os.Args[1]), config); err != nil {
		log.Fatal(err)
	}
}

// Started notes that a job has started that was due at dueMs.
func Started(dueMs int64) {
	now := time.Now().UnixMilli()
	mutex.Lock()
	defer mutex.Unlock()
	if len(seen.Lateness) == 0 {
		seen.FirstMs = now
	}
	seen.LastMs = now
	seen.Lateness = append(seen.Lateness, now-dueMs)
}

// Serve answers line by line, until it is told to stop. schedule says how long its calls took.
func Serve(schedule func([]Timer) time.Duration, work func() error) {
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		var a asked
		if err := json.Unmarshal(lines.Bytes(), &a); err != nil {
			log.Fatal(err)
		}
		var answer any = struct{}{}
		switch a.Do {
		case "schedule":
			took := schedule(timers(a.Count, a.FromMs, a.ToMs))
			answer = map[string]float64{"seconds": took.Seconds()}
		case "work":
			if err := work(); err != nil {
				log.Fatal(err)
			}
		case "fired":
			answer = waitFor(a.Count)
		}
		line, _ := json.Marshal(answer)
		fmt.Println(string(line))
		if a.Do == "stop" {
			return
		}
	}
}

func waitFor(count int) fired {
	for {
		mutex.Lock()
		if len(seen.Lateness) >= count {
			all := seen
			seen = fired{}
			mutex.Unlock()
			return all
		}
		mutex.Unlock()
		time.Sleep(20 * time.Millisecond)
	}
}

func timers(count int, fromMs, toMs int64) []Timer {
	pods, members := make([]string, 100), make([]string, 2000)
	for n := range pods {
		pods[n] = uuid()
	}
	for n := range members {
		members[n] = uuid()
	}
	made := make([]Timer, count)
	post := ""
	for n := range made {
		if n%20 == 0 {
			post = uuid()
		}
		kind := "like"
		if n%2 == 0 {
			kind = "comment"
		}
		due := fromMs + (toMs-fromMs)*int64(n)/int64(count)
		made[n] = Timer{due, pods[n%100], post, members[n*7919%2000], kind}
	}
	return made
}

func uuid() string {
	var b [16]byte
	_, _ = rand.Read(b[:])
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}
