# Does what standard input says, line by line, with LWP.

use strict;
use warnings;
use LWP::UserAgent;

$| = 1;
my $agent = LWP::UserAgent->new;
# A token that died long ago.
$agent->default_header(Authorization => 'Bearer oauth2-stale-1f8c2b');
while (my $step = <STDIN>) {
    chomp $step;
    my $response =
        $step eq 'get'
        ? $agent->get('https://api.lucid.co/users/me/profile')
        : $agent->post(
            'https://api.lucid.co/documents',
            'Content-Type' => 'application/json',
            Content        => '{"title":"a note","product":"lucidchart"}',
        );
    die $response->status_line, "\n", $response->decoded_content unless $response->is_success;
    print "$step ", $response->decoded_content, "\n";
}
