package lavant

import (
	"cmp"
	"context"
	"iter"

	"google.golang.org/protobuf/proto"

	pb "lavant.dev/go/lavantpb"
)

// Scores has the calls about scores, at Client.Scores.
type Scores struct{ client *Client }

// Number returns a score on the evaluator's own scale, usually 0 to 1.
func Number(name string, value float64) *Score {
	return &Score{Name: name, Value: &pb.Score_Number{Number: value}}
}

// Passed returns a score that says whether an assertion held.
func Passed(name string, value bool) *Score {
	return &Score{Name: name, Value: &pb.Score_Passed{Passed: value}}
}

// Label returns a score that is a class, such as "toxic".
func Label(name, value string) *Score {
	return &Score{Name: name, Value: &pb.Score_Label{Label: value}}
}

// ScoreOptions has what goes with a score.
type ScoreOptions struct {
	// ID of the score: a score is recorded once per ID. Default: a new one.
	ID string
	// Labels of the score. At most 16.
	Labels map[string]string
}

// Record records a score of a run, such as a user's feedback. The run need not have ended. It returns the score's ID.
//
//	score := lavant.Passed("helpful", false)
//	score.Explanation = "It was warm."
//	_, err := client.Scores.Record(ctx, run, score, lavant.ScoreOptions{})
func (s *Scores) Record(ctx context.Context, run string, score *Score, options ScoreOptions) (string, error) {
	id := cmp.Or(options.ID, newID())
	request := &pb.RecordScoreRequest{ScoreId: id, RunId: run, Score: score, Labels: options.Labels}
	_, err := call(ctx, s.client, pb.NewScoreServiceClient, pb.ScoreServiceClient.RecordScore, request)
	return id, err
}

// List returns the scores that match, those of the latest runs first, page by page as they are used. A nil filter
// matches all.
func (s *Scores) List(ctx context.Context, filter *pb.ScoreFilter) iter.Seq2[*pb.ScoreRecorded, error] {
	request := &pb.ListScoresRequest{Filter: filter}
	return pages("", func(token string) ([]*pb.ScoreRecorded, string, error) {
		page := proto.CloneOf(request)
		page.PageToken = token
		response, err := call(ctx, s.client, pb.NewScoreServiceClient, pb.ScoreServiceClient.ListScores, page)
		return response.GetScores(), response.GetNextPageToken(), err
	})
}

// Query aggregates scores by groups and over time.
func (s *Scores) Query(ctx context.Context, request *pb.QueryScoresRequest) ([]*pb.ScoreGroup, error) {
	response, err := call(ctx, s.client, pb.NewScoreServiceClient, pb.ScoreServiceClient.QueryScores, request)
	return response.GetGroups(), err
}

// Compare compares scores with earlier ones, or with those of another version.
func (s *Scores) Compare(ctx context.Context, request *pb.CompareScoresRequest) ([]*pb.ScoreChange, error) {
	response, err := call(ctx, s.client, pb.NewScoreServiceClient, pb.ScoreServiceClient.CompareScores, request)
	return response.GetChanges(), err
}
