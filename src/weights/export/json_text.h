// JSON as people read it: two blanks an indentation, short lists of numbers in a line each, as the published
// configurations are written.
#pragma once

#include <boost/json/object.hpp>
#include <string>

namespace octavo::weights {

std::string json_text(const boost::json::object& object);

}  // namespace octavo::weights
