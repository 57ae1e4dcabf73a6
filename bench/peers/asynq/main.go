// Asynq's part of the benchmark: see ../protocol.py for what is asked on standard input.
package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"log"
	"os"
	"sync"
	"time"

	"github.com/hibiken/asynq"
)

type config struct {
	URL         string `json:"url"`
	Concurrency int    `json:"concurrency"`
	CheckMs     int    `json:"check_ms"`
	Enqueuers   int    `json:"enqueuers"`
}

type asked struct {
	Do     string `json:"do"`
	Count  int    `json:"count"`
	FromMs int64  `json:"from_ms"`
	ToMs   int64  `json:"to_ms"`
}

type payload struct {
	PodID          string `json:"pod_id"`
	PostID         string `json:"post_id"`
	MemberID       string `json:"member_id"`
	EngagementType string `json:"engagement_type"`
	// A handler is not told when its task was due.
	DueMs int64 `json:"due_ms"`
}

type found struct {
	FirstMs  int64   `json:"first_ms"`
	LastMs   int64   `json:"last_ms"`
	Lateness []int64 `json:"lateness_ms"`
}

var (
	mutex sync.Mutex
	seen  found
)

func uuid() string {
	var b [16]byte
	_, _ = rand.Read(b[:])
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

func payloads(count int, fromMs, toMs int64) []payload {
	pods, members := make([]string, 100), make([]string, 2000)
	for n := range pods {
		pods[n] = uuid()
	}
	for n := range members {
		members[n] = uuid()
	}
	made := make([]payload, count)
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
		made[n] = payload{pods[n%100], post, members[n*7919%2000], kind, due}
	}
	return made
}

func schedule(client *asynq.Client, enqueuers int, a asked) float64 {
	all := payloads(a.Count, a.FromMs, a.ToMs)
	var group sync.WaitGroup
	began := time.Now()
	for first := range enqueuers {
		group.Go(func() {
			for n := first; n < len(all); n += enqueuers {
				value, _ := json.Marshal(all[n])
				task := asynq.NewTask(all[n].EngagementType, value)
				at := asynq.ProcessAt(time.UnixMilli(all[n].DueMs))
				if _, err := client.Enqueue(task, at); err != nil {
					log.Fatal(err)
				}
			}
		})
	}
	group.Wait()
	return time.Since(began).Seconds()
}

func handle(_ context.Context, task *asynq.Task) error {
	now := time.Now().UnixMilli()
	var p payload
	if err := json.Unmarshal(task.Payload(), &p); err != nil {
		return err
	}
	mutex.Lock()
	defer mutex.Unlock()
	if len(seen.Lateness) == 0 {
		seen.FirstMs = now
	}
	seen.LastMs = now
	seen.Lateness = append(seen.Lateness, now-p.DueMs)
	return nil
}

func fired(count int) found {
	for {
		mutex.Lock()
		if len(seen.Lateness) >= count {
			all := seen
			seen = found{}
			mutex.Unlock()
			return all
		}
		mutex.Unlock()
		time.Sleep(20 * time.Millisecond)
	}
}

func main() {
	var c config
	if err := json.Unmarshal([]byte(os.Args[1]), &c); err != nil {
		log.Fatal(err)
	}
	redis, err := asynq.ParseRedisURI(c.URL)
	if err != nil {
		log.Fatal(err)
	}
	client := asynq.NewClient(redis)
	server := asynq.NewServer(redis, asynq.Config{
		Concurrency:              c.Concurrency,
		DelayedTaskCheckInterval: time.Duration(c.CheckMs) * time.Millisecond,
		TaskCheckInterval:        time.Duration(c.CheckMs) * time.Millisecond,
		LogLevel:                 asynq.ErrorLevel,
	})
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		var a asked
		if err := json.Unmarshal(lines.Bytes(), &a); err != nil {
			log.Fatal(err)
		}
		var answer any = struct{}{}
		switch a.Do {
		case "schedule":
			answer = map[string]float64{"seconds": schedule(client, c.Enqueuers, a)}
		case "work":
			if err := server.Start(asynq.HandlerFunc(handle)); err != nil {
				log.Fatal(err)
			}
		case "fired":
			answer = fired(a.Count)
		}
		line, _ := json.Marshal(answer)
		fmt.Println(string(line))
		if a.Do == "stop" {
			os.Exit(0)
		}
	}
}
