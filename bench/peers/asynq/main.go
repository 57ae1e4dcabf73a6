// Asynq's part of the benchmark.
package main

import (
	"context"
	"encoding/json"
	"log"
	"sync"
	"time"

	"bench/go_driver"

	"github.com/hibiken/asynq"
)

type config struct {
	URL         string `json:"url"`
	Concurrency int    `json:"concurrency"`
	CheckMs     int    `json:"check_ms"`
	Enqueuers   int    `json:"enqueuers"`
}

type payload struct {
	PodID          string `json:"pod_id"`
	PostID         string `json:"post_id"`
	MemberID       string `json:"member_id"`
	EngagementType string `json:"engagement_type"`
	// A handler is not told when its task was due.
	DueMs int64 `json:"due_ms"`
}

// There is no call for many tasks; as many calls at once as help.
func schedule(client *asynq.Client, enqueuers int, timers []go_driver.Timer) time.Duration {
	var group sync.WaitGroup
	began := time.Now()
	for first := range enqueuers {
		group.Go(func() {
			for n := first; n < len(timers); n += enqueuers {
				t := timers[n]
				value, _ := json.Marshal(
					payload{t.PodID, t.PostID, t.MemberID, t.EngagementType, t.DueMs},
				)
				task := asynq.NewTask(t.EngagementType, value)
				at := asynq.ProcessAt(time.UnixMilli(t.DueMs))
				if _, err := client.Enqueue(task, at); err != nil {
					log.Fatal(err)
				}
			}
		})
	}
	group.Wait()
	return time.Since(began)
}

func handle(_ context.Context, task *asynq.Task) error {
	var p payload
	if err := json.Unmarshal(task.Payload(), &p); err != nil {
		return err
	}
	go_driver.Started(p.DueMs)
	return nil
}

func main() {
	var c config
	go_driver.Configure(&c)
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
	go_driver.Serve(
		func(timers []go_driver.Timer) time.Duration { return schedule(client, c.Enqueuers, timers) },
		func() error { return server.Start(asynq.HandlerFunc(handle)) },
	)
}
